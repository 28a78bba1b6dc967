"""Convolutional and fully connected models."""

import numpy as np
from net import Net, model

IMAGE = ["batch", 3, 16, 16]
CLASSES = ["batch", 10]


@model(opset=9)
def vgg(n: Net):
    """VGG-like: plain chain; Flatten of C*H*W into a Gemm, so one channel is many columns; static batch."""
    x, width = n.input("image", [1, 3, 16, 16]), 3
    for cout in (12, 16, 24):
        x = n.MaxPool(n.conv_relu(x, width, cout), kernel_shape=[2, 2], strides=[2, 2])
        width = cout
    x = n.Relu(n.gemm(n.Flatten(x, axis=1), width * 4, 32))
    n.output("logits", n.gemm(n.Dropout(x, ratio=0.5), 32, 10), [1, 10])


@model(opset=17)
def resnet(n: Net):
    """ResNet, basic blocks: residual Add, projection shortcut, BatchNormalization folded into Conv."""
    x, width = n.conv_relu(n.input("image", IMAGE), 3, 12), 12
    for cout, stride in ((12, 1), (12, 1), (24, 2)):
        with n.scope("block"):
            y = n.conv(n.conv_relu(x, width, cout, stride=stride), cout, cout)
            short = x if width == cout else n.conv(x, width, cout, 1, stride=stride)
            x, width = n.Relu(n.Add(y, short)), cout
    n.output("logits", n.softmax_head(x, width), CLASSES)


@model(opset=13)
def preact_resnet(n: Net):
    """Pre-activation ResNet, bottlenecks: BatchNormalization unfused, before Conv; AveragePool."""
    x, width = n.conv(n.input("image", IMAGE), 3, 12, bias=False), 12
    for cout, stride in ((24, 1), (24, 1), (32, 2)):
        with n.scope("block"):
            pre = n.Relu(n.batch_norm(x, width))
            y = n.Relu(n.batch_norm(n.conv(pre, width, 8, 1, bias=False), 8))
            y = n.Relu(n.batch_norm(n.conv(y, 8, 8, stride=stride, bias=False), 8))
            short = x if width == cout else n.conv(pre, width, cout, 1, stride=stride, bias=False)
            x, width = n.Add(n.conv(y, 8, cout, 1, bias=False), short), cout
    x = n.AveragePool(n.Relu(n.batch_norm(x, width)), kernel_shape=[8, 8])
    n.output("logits", n.gemm(n.Flatten(x), width, 10), CLASSES)


@model(opset=12)
def densenet(n: Net):
    """DenseNet: each layer reads the Concat of all before it; one BatchNormalization over many groups."""
    x, width = n.conv(n.input("image", IMAGE), 3, 8, bias=False), 8
    for _ in range(2):
        features = [x]
        for i in range(3):
            with n.scope("layer"):
                y = features[0] if len(features) == 1 else n.Concat(*features, axis=1)
                y = n.conv_relu(n.Relu(n.batch_norm(y, width + 6 * i)), width + 6 * i, 12, 1)
                features.append(n.conv(y, 12, 6, bias=False))
        x, width = n.Concat(*features, axis=1), width + 18
        with n.scope("transition"):
            x = n.conv(n.Relu(n.batch_norm(x, width)), width, width // 2, 1, bias=False)
            x, width = n.AveragePool(x, kernel_shape=[2, 2], strides=[2, 2]), width // 2
    n.output("logits", n.softmax_head(n.Relu(n.batch_norm(x, width)), width), CLASSES)


@model(opset=14)
def inception(n: Net):
    """Inception: parallel branches of unequal width, 1x5 and 5x1 kernels, a pooling branch, Concat."""
    x, width = n.conv_relu(n.input("image", IMAGE), 3, 12, stride=2), 12
    for _ in range(2):
        with n.scope("mixed"):
            pool = n.AveragePool(x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
            branches = [
                n.conv_relu(x, width, 8, 1),
                n.conv_relu(n.conv_relu(x, width, 6, 1), 6, 10),
                n.conv_relu(n.conv_relu(n.conv_relu(x, width, 6, 1), 6, 6, (1, 5)), 6, 8, (5, 1)),
                n.conv_relu(pool, width, 6, 1),
            ]
            x, width = n.Concat(*branches, axis=1), 32
    n.output("logits", n.softmax_head(x, width), CLASSES)


@model(opset=11)
def mobilenet_v2(n: Net):
    """MobileNetV2: depthwise Conv, Clip as ReLU6, linear bottlenecks, residuals, ReduceMean pooling."""

    def relu6(x):
        return n.Clip(x, 0.0, 6.0)

    x, width = relu6(n.conv(n.input("image", IMAGE), 3, 12)), 12
    for cout, stride in ((12, 1), (16, 2), (16, 1)):
        with n.scope("block"):
            wide = 3 * width
            y = relu6(n.conv(x, width, wide, 1))
            y = n.conv(relu6(n.conv(y, wide, wide, stride=stride, groups=wide)), wide, cout, 1)
            x, width = (n.Add(x, y) if stride == 1 else y), cout
    x = n.mean(relu6(n.conv(x, width, 48, 1)), 2, 3, keepdims=0)
    n.output("logits", n.gemm(x, 48, 10), CLASSES)


@model(opset=14)
def mobilenet_v3(n: Net):
    """MobileNetV3: squeeze-excite by Conv and HardSigmoid, HardSwish, depthwise 5x5."""
    x, width = n.HardSwish(n.conv(n.input("image", IMAGE), 3, 12, stride=2)), 12
    for _ in range(2):
        with n.scope("block"):
            y = n.HardSwish(n.conv(x, width, 32, 1))
            y = n.HardSwish(n.conv(y, 32, 32, 5, groups=32))
            gate = n.conv_relu(n.GlobalAveragePool(y), 32, 8, 1)
            gate = n.HardSigmoid(n.conv(gate, 8, 32, 1), alpha=1 / 6)
            x = n.Add(x, n.conv(n.Mul(gate, y), 32, width, 1))
    n.output("logits", n.softmax_head(x, width), CLASSES)


@model(opset=18, constants="initializer")
def efficientnet(n: Net):
    """EfficientNet: Swish as Sigmoid and Mul, squeeze-excite on ReduceMean, channel multiplier 2."""

    def swish(x):
        return n.Mul(x, n.Sigmoid(x))

    x = swish(n.conv(n.input("image", IMAGE), 3, 16, stride=2))
    x = swish(n.conv(x, 16, 32, groups=16))
    for _ in range(2):
        with n.scope("block"):
            y = swish(n.conv(n.conv(x, 32, 32, groups=32), 32, 40, 1))
            gate = n.Sigmoid(n.conv(swish(n.conv(n.mean(y, 2, 3), 40, 8, 1)), 8, 40, 1))
            x = n.Add(n.conv(n.Mul(y, gate), 40, 32, 1), x)
    n.output("logits", n.softmax_head(x, 32), CLASSES)


@model(opset=16)
def resnext(n: Net):
    """ResNeXt: grouped Conv (4 groups) inside residual bottlenecks."""
    x = n.conv_relu(n.input("image", IMAGE), 3, 32, stride=2)
    for _ in range(2):
        with n.scope("block"):
            y = n.conv_relu(n.conv_relu(x, 32, 32, 1), 32, 32, groups=4)
            x = n.Relu(n.Add(n.conv(y, 32, 32, 1), x))
    n.output("logits", n.softmax_head(x, 32), CLASSES)


@model(opset=13)
def shufflenet(n: Net):
    """ShuffleNet: Split, grouped and depthwise Conv, Concat, shuffle by Reshape and Transpose."""

    def shuffle(x, groups, width):
        x = n.Reshape(x, [-1, groups, width // groups, 8, 8])
        return n.Reshape(n.Transpose(x, perm=[0, 2, 1, 3, 4]), [-1, width, 8, 8])

    x = n.conv_relu(n.input("image", IMAGE), 3, 32, stride=2)
    for _ in range(2):
        with n.scope("unit"):
            left, right = n.split(x, [16, 16], axis=1)
            right = n.conv(n.conv_relu(right, 16, 16, 1), 16, 16, groups=16)
            x = shuffle(n.Concat(left, n.conv_relu(right, 16, 16, 1), axis=1), 2, 32)
    with n.scope("grouped"):
        y = shuffle(n.conv_relu(x, 32, 32, 1, groups=4), 4, 32)
        x = n.Relu(n.Add(x, n.conv(y, 32, 32, 1, groups=4)))
    n.output("logits", n.softmax_head(x, 32), CLASSES)


@model(opset=18)
def unet(n: Net):
    """U-Net: ConvTranspose and Resize decoders, skip connections by Concat, dynamic height and width."""
    skips, x, width = [], n.input("image", ["batch", 3, "height", "width"]), 3
    for cout in (8, 12):
        x = n.conv_relu(x, width, cout)
        skips.append(x)
        x, width = n.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2]), cout
    x = n.conv_relu(x, 12, 16)
    x = n.Concat(skips[1], n.upconv(x, 16, 12), axis=1)
    x = n.conv_relu(x, 24, 12)
    x = n.Resize(x, None, [1.0, 1.0, 2.0, 2.0], mode="nearest", coordinate_transformation_mode="asymmetric")
    x = n.conv_relu(n.Concat(x, skips[0], axis=1), 20, 8)
    n.output("mask", n.Sigmoid(n.conv(x, 8, 2, 1)), ["batch", 2, None, None])


@model(opset=11)
def super_resolution(n: Net):
    """Super-resolution: two DepthToSpace steps (CRD and DCR), long skip, PRelu, dynamic height and width."""
    x = n.input("image", ["batch", 1, "height", "width"])
    first = n.PRelu(n.conv(x, 1, 16, 5), n.vector(16, 1, 1, mean=0.25, name="slope"))
    y = n.Add(first, n.conv(n.conv_relu(first, 16, 16), 16, 16))
    y = n.DepthToSpace(n.conv(y, 16, 32), blocksize=2, mode="CRD")
    y = n.DepthToSpace(n.conv(n.Relu(y), 8, 4), blocksize=2, mode="DCR")
    n.output("upscaled", y, ["batch", 1, None, None])


@model(opset=9)
def pixel_shuffle(n: Net):
    """ESPCN: the pixel shuffle decomposed into Reshape, Transpose, Reshape; then a Conv; static shapes."""
    x = n.conv_relu(n.conv_relu(n.input("image", [1, 1, 8, 8]), 1, 24, 5), 24, 16)
    x = n.Reshape(n.conv(x, 16, 32), [1, 8, 2, 2, 8, 8])
    x = n.Reshape(n.Transpose(x, perm=[0, 1, 4, 2, 5, 3]), [1, 8, 16, 16])
    n.output("upscaled", n.conv(x, 8, 1), [1, 1, 16, 16])


@model(opset=15)
def group_norm(n: Net):
    """GroupNorm CNN: the norm decomposed into Reshape, InstanceNormalization, Reshape, Mul, Add."""
    x, width = n.input("image", IMAGE), 3
    for cout in (16, 24):
        with n.scope("block"):
            x = n.conv(x, width, cout, stride=2)
            flat = n.Reshape(x, [0, 4, -1])
            flat = n.InstanceNormalization(flat, [1.0] * 4, [0.0] * 4)
            x = n.Mul(n.Reshape(flat, n.Shape(x)), n.vector(cout, 1, 1, mean=1, name="weight"))
            x, width = n.Relu(n.Add(x, n.vector(cout, 1, 1))), cout
    n.output("logits", n.softmax_head(x, width), CLASSES)


@model(opset=21)
def group_norm_21(n: Net):
    """GroupNorm CNN: the GroupNormalization operator with per-channel scale, in a residual block."""

    def norm(x, width):
        with n.scope("norm"):
            scale = n.vector(width, mean=1, name="weight")
            return n.GroupNormalization(x, scale, n.vector(width), num_groups=4)

    x = n.Relu(norm(n.conv(n.input("image", IMAGE), 3, 24, stride=2), 24))
    y = n.conv(n.Relu(norm(n.conv(x, 24, 16), 16)), 16, 24)
    n.output("logits", n.softmax_head(n.Relu(n.Add(x, norm(y, 24))), 24), CLASSES)


@model(opset=18)
def convnext(n: Net):
    """ConvNeXt: depthwise 7x7, Transpose to channels last, LayerNormalization, MatMul, layer scale."""

    def gelu(x):
        return n.Mul(n.Mul(x, n.Add(n.Erf(n.Div(x, float(np.sqrt(2)))), 1.0)), 0.5)

    def norm(x, width):
        return n.Transpose(n.layer_norm(n.Transpose(x, perm=[0, 2, 3, 1]), width), perm=[0, 3, 1, 2])

    x, width = norm(n.conv(n.input("image", IMAGE), 3, 16, 4, stride=4, pad=0), 16), 16
    for cout in (16, 24):
        if cout != width:
            x, width = n.conv(norm(x, width), width, cout, 2, stride=2, pad=0), cout
        with n.scope("block"):
            y = n.Transpose(n.conv(x, width, width, 7, groups=width), perm=[0, 2, 3, 1])
            y = n.linear(gelu(n.linear(n.layer_norm(y, width), width, 2 * width)), 2 * width, width)
            y = n.Mul(y, n.vector(width, mean=0.5, name="gamma"))
            x = n.Add(x, n.Transpose(y, perm=[0, 3, 1, 2]))
    x = n.layer_norm(n.mean(x, 2, 3, keepdims=0), width)
    n.output("logits", n.gemm(x, width, 10), CLASSES)


@model(opset=17)
def yolo(n: Net):
    """YOLO-like: Split and Concat (C2f), SPPF, Resize, two heads reshaped to anchors, DFL Softmax."""

    def silu(x):
        return n.Mul(x, n.Sigmoid(x))

    def c2f(x, width):
        with n.scope("c2f"):
            half = width // 2
            first, second = n.split(silu(n.conv(x, width, width, 1)), [half, half], axis=1)
            third = n.Add(second, silu(n.conv(second, half, half)))
            return silu(n.conv(n.Concat(first, second, third, axis=1), 3 * half, width, 1))

    def head(x, width, cells):
        with n.scope("head"):
            box, score = n.conv(x, width, 4 * 4, 1), n.conv(silu(n.conv(x, width, 8)), 8, 3, 1)
            return n.Reshape(n.Concat(box, score, axis=1), [0, 19, cells])

    fine = c2f(silu(n.conv(n.input("image", ["batch", 3, 32, 32]), 3, 12, stride=4)), 12)
    x = silu(n.conv(fine, 12, 16, stride=2))
    pools = [x]
    for _ in range(2):
        pools.append(n.MaxPool(pools[-1], kernel_shape=[3, 3], pads=[1] * 4))
    coarse = silu(n.conv(n.Concat(*pools, axis=1), 48, 16, 1))
    up = n.Resize(coarse, None, [1.0, 1.0, 2.0, 2.0], mode="nearest")
    fine = silu(n.conv(n.Concat(up, fine, axis=1), 28, 12))
    found = n.Concat(head(fine, 12, 64), head(coarse, 16, 16), axis=2)
    box, score = n.split(found, [16, 3], axis=1)
    box = n.Transpose(n.Reshape(box, [0, 4, 4, 80]), perm=[0, 2, 1, 3])
    box = n.conv(n.Softmax(box, axis=1), 4, 1, 1, bias=False)
    n.output("boxes", n.Concat(n.Reshape(box, [0, 4, 80]), n.Sigmoid(score), axis=1), ["batch", 7, 80])


@model(opset=10)
def dcgan(n: Net):
    """DCGAN generator: Gemm reshaped to a map, ConvTranspose (one grouped), BatchNormalization."""
    x = n.Reshape(n.gemm(n.input("noise", ["batch", 16]), 16, 24 * 4), [-1, 24, 2, 2])
    x = n.Relu(n.batch_norm(n.upconv(n.Relu(n.batch_norm(x, 24)), 24, 16, 4, pad=1), 16))
    x = n.Relu(n.batch_norm(n.upconv(x, 16, 12, 4, pad=1, groups=4), 12))
    n.output("image", n.Tanh(n.upconv(x, 12, 1, 4, pad=1)), ["batch", 1, 16, 16])


@model(opset=13)
def tcn(n: Net):
    """Temporal convolutional net: dilated 1-D Conv, made causal by Slice; residual."""
    x, width = n.input("series", ["batch", 4, "time"]), 4
    for dilation in (1, 2, 4):
        with n.scope("level"):
            y = x
            for cin in (width, 24):
                y = n.conv(y, cin, 24, dims=1, dilation=dilation, pad=2 * dilation)
                y = n.Relu(n.Slice(y, [0], [-2 * dilation], [2], [1]))
            x = n.Relu(n.Add(y, x if width == 24 else n.conv(x, width, 24, 1, dims=1)))
            width = 24
    last = n.Gather(x, np.array(-1), axis=2)
    n.output("forecast", n.gemm(last, 24, 3), ["batch", 3])


@model(opset=17)
def conv3d(n: Net):
    """Video CNN, 3-D: factorised (2+1)-D Conv, MaxPool over three axes, ReduceMean."""
    x, width = n.input("clip", ["batch", 3, 4, 12, 12]), 3
    for cout in (12, 20):
        with n.scope("block"):
            x = n.conv_relu(n.conv_relu(x, width, 16, (1, 3, 3)), 16, cout, (3, 1, 1))
            x, width = n.MaxPool(x, kernel_shape=[2, 2, 2], strides=[2, 2, 2]), cout
    n.output("logits", n.gemm(n.mean(x, 2, 3, 4, keepdims=0), width, 10), CLASSES)


@model(opset=13)
def mlp(n: Net):
    """MLP: Gemm with transB 1 and 0, a MatMul and Add layer, BatchNormalization on rank 2, Softmax."""
    x = n.Relu(n.batch_norm(n.gemm(n.input("features", ["batch", 20]), 20, 48), 48))
    x = n.Tanh(n.linear(n.LeakyRelu(n.gemm(x, 48, 40, trans=False), alpha=0.1), 40, 32))
    n.output("probabilities", n.Softmax(n.gemm(x, 32, 5), axis=-1), ["batch", 5])


@model(opset=17)
def autoencoder(n: Net):
    """Variational autoencoder: mean and variance by Split of one Gemm; three outputs."""
    x = n.Elu(n.gemm(n.input("features", ["batch", 32]), 32, 40))
    mean, spread = n.split(n.gemm(x, 40, 16), [8, 8], axis=1)
    code = n.Add(mean, n.Mul(n.Exp(n.Mul(spread, 0.5)), n.input("noise", ["batch", 8])))
    decoded = n.gemm(n.Elu(n.gemm(code, 8, 40)), 40, 32)
    n.output("reconstruction", decoded, ["batch", 32])
    n.output("mean", mean, ["batch", 8])
    n.output("log_variance", spread, ["batch", 8])


@model(opset=14)
def siamese(n: Net):
    """Siamese: two branches share their weights, so shrink alike; LpNormalization."""
    weights = {"first": n.matrix(12, 1, 3, 3, name="first"), "second": n.matrix(20, 12, 3, 3, name="second")}
    head, bias = n.matrix(16, 20, name="head"), n.vector(16)

    def branch(x):
        with n.scope("branch"):
            for weight in weights.values():
                x = n.Relu(n.Conv(x, weight, pads=[1] * 4, strides=[2, 2], kernel_shape=[3, 3]))
            x = n.Gemm(n.Flatten(n.GlobalMaxPool(x)), head, bias, transB=1)
            return n.LpNormalization(x, axis=1, p=2)

    left, right = (branch(n.input(side, ["batch", 1, 16, 16])) for side in ("left", "right"))
    similarity = n.ReduceSum(n.Mul(left, right), [1], keepdims=0)
    n.output("similarity", similarity, ["batch"])


@model(opset=13)
def pointnet(n: Net):
    """PointNet: pointwise 1-D Conv, ReduceMax over points, Expand to a dynamic shape, Concat."""
    points = n.input("points", ["batch", 3, "points"])
    local = n.conv_relu(points, 3, 16, 1, dims=1)
    feature = n.ReduceMax(n.conv_relu(local, 16, 48, 1, dims=1), axes=[2], keepdims=1)
    sizes = n.Concat(n.unsqueeze(n.size(points, 0), 0), [48], n.unsqueeze(n.size(points, 2), 0), axis=0)
    x = n.Concat(local, n.Expand(feature, sizes), axis=1)
    n.output("labels", n.conv(n.conv_relu(x, 64, 24, 1, dims=1), 24, 6, 1, dims=1), ["batch", 6, "points"])


@model(opset=15, constants="initializer")
def channels_last(n: Net):
    """TensorFlow-style NHWC CNN: Transpose around every Conv, bias Add in NHWC, Pad, MatMul head."""
    x, width = n.input("input:0", ["batch", 16, 16, 3]), 3
    for cout in (16, 24):
        with n.scope("model/conv2d"):
            padded = n.Pad(n.Transpose(x, perm=[0, 3, 1, 2]), [0, 0, 0, 0, 0, 0, 1, 1])
            x = n.Transpose(n.conv(padded, width, cout, stride=2, pad=0, bias=False), perm=[0, 2, 3, 1])
            x, width = n.Relu(n.Add(x, n.vector(cout))), cout
    x = n.Add(n.MatMul(n.Reshape(x, [-1, 4 * 4 * 24]), n.matrix(384, 10, fan=384)), n.vector(10))
    n.output("probabilities:0", n.Softmax(x), CLASSES)
