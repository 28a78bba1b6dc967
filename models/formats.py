"""Models that are special in how they are stored, or in an operator that limits what can be pruned."""

from functools import partial

import ml_dtypes  # comes with onnx
import numpy as np
import onnx
from net import Net, model
from onnx import TensorProto, helper, numpy_helper

IMAGE = ["batch", 3, 16, 16]
CLASSES = ["batch", 10]


@model(opset=7, ir=3, constants="initializer", listed=True)
def alexnet(n: Net):
    """AlexNet: IR version 3 with the initializers among the inputs; LRN, two-group Conv, Dropout; static."""
    x = n.LRN(n.conv_relu(n.input("data_0", [1, 3, 16, 16]), 3, 16, 5, stride=2), size=5)
    x = n.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])
    x = n.conv_relu(n.LRN(n.conv_relu(x, 16, 20, groups=2), size=5), 20, 16)
    x = n.Reshape(n.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2]), [1, 64])
    x = n.Dropout(n.Relu(n.gemm(x, 64, 40)), ratio=0.5)
    n.output("prob_1", n.Softmax(n.gemm(x, 40, 10), axis=1), [1, 10])


@model(opset=8, ir=3, weights="constant", constants="initializer", listed=True)
def constant_weights(n: Net):
    """CNTK-style CNN: weights as Constant nodes, bias by Add [C,1,1], auto_pad, a reshaped weight."""
    x, width = n.input("Input3", [1, 1, 16, 16]), 1
    for cout in (12, 16):
        with n.scope("Convolution"):
            kernel = n.matrix(cout, width, 5, 5, name="W")
            x = n.Conv(x, kernel, auto_pad="SAME_UPPER", kernel_shape=[5, 5])
            x, width = n.Relu(n.Add(x, n.vector(cout, 1, 1, name="b"))), cout
            x = n.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])
    weight = n.Reshape(n.matrix(16, 4, 4, 10, fan=256, name="Parameter193"), [256, 10])
    x = n.MatMul(n.Reshape(x, [1, 256]), weight)
    n.output("Plus214_Output_0", n.Add(x, n.vector(1, 10, name="Parameter194")), [1, 10])


def residual_classifier(n: Net, image: str) -> str:
    x = n.conv_relu(image, 3, 16, stride=2)
    x = n.Relu(n.Add(n.conv(n.conv_relu(x, 16, 24), 24, 16), x))
    return n.softmax_head(x, 16)


@model(opset=13, dtype=np.float16)
def half(n: Net):
    """Residual CNN in float16: weights in half precision, Cast from and to float32 at the ends."""
    x = n.Cast(n.input("image", IMAGE, TensorProto.FLOAT), to=TensorProto.FLOAT16)
    n.output("logits", n.Cast(residual_classifier(n, x), to=TensorProto.FLOAT), CLASSES, TensorProto.FLOAT)


@model(opset=13, dtype=np.float64)
def double(n: Net):
    """Residual MLP in double: weights, input and output in float64 (ONNX Runtime's CPU has no such Conv)."""
    x = n.Relu(n.gemm(n.input("features", ["batch", 20]), 20, 32))
    x = n.Add(x, n.linear(n.Tanh(n.batch_norm(n.linear(x, 32, 40), 40)), 40, 32))
    n.output("logits", n.gemm(x, 32, 10), CLASSES)


@model(opset=16, dtype=ml_dtypes.bfloat16)
def bfloat16(n: Net):
    """MLP in bfloat16: weights in bfloat16, each cast to float32 where it is used."""

    def linear(x, cin, cout):
        with n.scope("linear"):
            parts = n.matrix(cin, cout, fan=cin), n.vector(cout)
            weight, bias = (n.Cast(part, to=TensorProto.FLOAT) for part in parts)
            return n.Add(n.MatMul(x, weight), bias)

    x = n.input("features", ["batch", 24], TensorProto.FLOAT)
    x = n.Relu(linear(n.Relu(linear(x, 24, 64)), 64, 48))
    n.output("logits", linear(x, 48, 10), CLASSES, TensorProto.FLOAT)


@model(opset=22, dtype=ml_dtypes.bfloat16, runnable=False)
def bfloat16_compute(n: Net):
    """Residual CNN computed in bfloat16: structure only, ONNX Runtime's CPU has no such kernels."""
    n.output("logits", residual_classifier(n, n.input("image", IMAGE)), CLASSES)


def save_external(proto: onnx.ModelProto, path) -> None:
    data = path.with_suffix(".data")
    data.unlink(missing_ok=True)  # onnx appends to a file that is there
    onnx.save(proto, path, save_as_external_data=True, location=data.name, size_threshold=256)


@model(opset=17, save=save_external)
def external(n: Net):
    """Residual CNN with external data: large tensors in `external.data`, small ones in the model."""
    n.output("logits", residual_classifier(n, n.input("image", IMAGE)), CLASSES)


@model(opset=18, constants="initializer")
def merged(n: Net):
    """Exporter that merges equal tensors: one all-ones scale and one all-zeros bias serve all layers."""
    ones = n.tensor("ones", np.ones(24, np.float32))
    zeros = n.tensor("zeros", np.zeros(24, np.float32))
    x = n.Gemm(n.input("features", ["batch", 16]), n.matrix(24, 16), zeros, transB=1)
    for _ in range(3):
        with n.scope("layer"):
            y = n.LayerNormalization(x, ones, zeros)
            y = n.Relu(n.Gemm(y, n.matrix(24, 24, name="up"), zeros, transB=1))
            x = n.Add(x, n.Gemm(y, n.matrix(24, 24, name="down"), zeros, transB=1))
    n.output("logits", n.gemm(n.LayerNormalization(x, ones, zeros), 24, 10), CLASSES)


@model(opset=18, ir=10, domains={"pkg.blocks": 1})
def functions(n: Net):
    """CNN of model-local functions: a Conv block with an attribute, and a GELU, called several times each."""
    local = partial(helper.make_function, "pkg.blocks", opset_imports=[helper.make_opsetid("", 18)])
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)
    conv.attribute.add(name="strides", ref_attr_name="strides", type=onnx.AttributeProto.INTS)
    sigmoid = [
        helper.make_node("Constant", [], ["factor"], value_float=1.702),
        helper.make_node("CastLike", ["factor", "x"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["y"]),
    ]
    block = [conv, helper.make_node("QuickGelu", ["y"], ["z"], domain="pkg.blocks")]
    n.functions = [
        local("QuickGelu", ["x"], ["y"], sigmoid),
        helper.make_function(
            *("pkg.blocks", "ConvBlock", ["x", "w", "b"], ["z"], block),
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("pkg.blocks", 1)],
            attributes=["strides"],
        ),
    ]
    x, width = n.input("image", IMAGE), 3
    for cout in (12, 16, 24):
        with n.scope("block"):
            weights = n.matrix(cout, width, 3, 3), n.vector(cout)
            x, width = n.op("ConvBlock", x, *weights, domain="pkg.blocks", strides=[2, 2]), cout
    x = n.op("QuickGelu", n.gemm(n.Flatten(n.GlobalAveragePool(x)), 24, 32), domain="pkg.blocks")
    n.output("logits", n.gemm(x, 32, 10), CLASSES)


@model(opset=20, ir=10)
def annotated(n: Net):
    """Residual CNN with annotations: doc strings, metadata, value_info, quantization, versions."""
    n.output("logits", residual_classifier(n, n.input("image", IMAGE)), CLASSES)

    def annotate(proto: onnx.ModelProto) -> None:
        graph = proto.graph
        proto.domain, proto.model_version, proto.producer_version = "org.example", 7, "1.2"
        proto.doc_string, graph.doc_string = "of the model", "of the graph"
        graph.value_info.extend(onnx.shape_inference.infer_shapes(proto).graph.value_info)
        entries = [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
        for index, entry in enumerate(entries):
            entry.doc_string = f"doc {index}"
        for entry in (proto, graph, *entries):
            entry.metadata_props.add(key="origin", value=entry.DESCRIPTOR.name)
        scale = graph.quantization_annotation.add(tensor_name=graph.node[0].output[0])
        scale.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=graph.initializer[1].name)

    return annotate


@model(opset=17, ir=8, strict=False)
def sparse(n: Net):
    """MLP with a sparse initializer: the second weight in COO form, most of its elements zero."""
    x = n.Relu(n.gemm(n.input("features", ["batch", 20]), 20, 40, trans=False))
    x = n.Relu(n.MatMul(x, n.matrix(40, 30, fan=4, name="sparse")))
    n.output("logits", n.gemm(x, 30, 10), CLASSES)

    def sparsify(proto: onnx.ModelProto) -> None:
        dense = next(t for t in proto.graph.initializer if t.name == "sparse")
        proto.graph.initializer.remove(dense)
        array = numpy_helper.to_array(dense).ravel()
        kept = np.sort(np.argsort(-np.abs(array), kind="stable")[: array.size // 10])
        values = numpy_helper.from_array(array[kept], "sparse")
        indices = numpy_helper.from_array(kept.astype(np.int64), "sparse_indices")
        proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dense.dims))

    return sparsify


@model(opset=17, domains={"com.example": 1}, runnable=False, strict=False)
def custom_op(n: Net):
    """CNN with an operator of an unknown domain: `Whirl` is a barrier, the rest can be pruned; cannot run."""
    x = n.conv_relu(n.conv_relu(n.input("image", IMAGE), 3, 16), 16, 24)
    x = n.conv_relu(n.op("Whirl", x, domain="com.example", strength=0.5), 24, 16)
    n.output("logits", n.softmax_head(n.conv_relu(x, 16, 20), 20), CLASSES)


@model(opset=14, ir=8)
def lstm(n: Net):
    """Tagger with a bidirectional LSTM: a recurrent operator between an Embedding and two linear layers."""
    width, hidden = 16, 12
    ids = n.input("ids", ["batch", "sequence"], TensorProto.INT64)
    x = n.Relu(n.linear(n.Gather(n.matrix(48, width, fan=2, name="embedding"), ids), width, width))
    sizes = {"W": width, "R": hidden}
    gates = [n.matrix(2, 4 * hidden, size, fan=size, name=name) for name, size in sizes.items()]
    y = n.LSTM(
        *(n.Transpose(x, perm=[1, 0, 2]), *gates, n.vector(2, 8 * hidden, name="B")),
        hidden_size=hidden,
        direction="bidirectional",
    )
    y = n.Reshape(n.Transpose(y, perm=[2, 0, 1, 3]), [0, 0, 2 * hidden])
    n.output("tags", n.linear(n.Relu(n.linear(y, 2 * hidden, 32)), 32, 5), ["batch", "sequence", 5])


@model(opset=16, ir=8)
def control_flow(n: Net):
    """MLP with If: branches read outer activations and weights, one shared with the main graph."""
    x = n.Relu(n.gemm(n.input("features", ["batch", 16]), 16, 32))
    shared = n.matrix(32, 32, fan=32, name="shared")

    def branch(name, fill):
        outer, n.nodes = n.nodes, []
        result = fill()
        nodes, n.nodes = n.nodes, outer
        output = helper.make_tensor_value_info(result, n.elem, ["batch", 32])
        return helper.make_graph(nodes, name, [], [output])

    positive = n.Greater(n.ReduceMean(x, keepdims=0), 0.5)
    y = n.If(
        positive,
        then_branch=branch("then", lambda: n.Relu(n.gemm(x, 32, 32))),
        else_branch=branch("else", lambda: n.Tanh(n.MatMul(x, shared))),
    )
    y = n.Relu(n.gemm(n.Add(y, n.MatMul(x, shared)), 32, 24))
    n.output("logits", n.gemm(y, 24, 10), CLASSES)


@model(opset=13, ir=8)
def quantized(n: Net):
    """CNN with QDQ: int8 weights per output channel, int8 activations, int32 biases, DequantizeLinear."""

    def fake(x, scale):
        scale, zero = np.array(scale, np.float32), np.array(0, np.int8)
        return n.DequantizeLinear(n.QuantizeLinear(x, scale, zero), scale, zero)

    def conv(x, cin, cout):
        with n.scope("conv"):
            weight = n.rng.standard_normal((cout, cin, 3, 3)) * np.sqrt(2 / (9 * cin))
            scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
            weight = n.tensor("weight", np.round(weight / scale[:, None, None, None]).astype(np.int8))
            bias = n.tensor("bias", n.rng.randint(-200, 200, cout).astype(np.int32))
            scales = n.tensor("scale", scale.astype(np.float32)), n.tensor("zero", np.zeros(cout, np.int8))
            weight = n.DequantizeLinear(weight, *scales, axis=0)
            bias = n.DequantizeLinear(bias, n.tensor("bias_scale", (0.05 * scale).astype(np.float32)), axis=0)
            return fake(n.Relu(n.Conv(x, weight, bias, pads=[1] * 4, strides=[2, 2])), 0.05)

    x = conv(conv(conv(fake(n.input("image", IMAGE), 0.05), 3, 16), 16, 24), 24, 32)
    n.output("logits", n.softmax_head(x, 32), CLASSES)


@model(opset=17, ir=8, domains={"com.microsoft": 1}, strict=False)
def fused(n: Net):
    """Fused transformer block: com.microsoft Attention, SkipLayerNormalization."""
    microsoft, width = partial(n.op, domain="com.microsoft"), 24
    x = n.linear(n.input("tokens", ["batch", "sequence", 12]), 12, width)
    packed = n.matrix(width, 3 * width, fan=width, name="qkv"), n.vector(3 * width, name="qkv_bias")
    y = n.linear(microsoft("Attention", x, *packed, num_heads=3), width, width, bias=False)
    norm = n.vector(width, mean=1, name="gamma"), n.vector(width, name="beta")
    x = microsoft("SkipLayerNormalization", x, y, *norm)
    y = microsoft("BiasGelu", n.linear(x, width, 48, bias=False), n.vector(48, name="up_bias"))
    n.output("scores", n.linear(n.Add(x, n.linear(y, 48, width)), width, 4), ["batch", "sequence", 4])
