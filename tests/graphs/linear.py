"""Networks with linear bottlenecks: channels that nothing but linear layers makes and reads."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.graphs.net import Net

WIDTH = 8
SIZE = 6


def bottleneck(*, blocks: int = 2, width: int = WIDTH, scaled: bool = False) -> onnx.ModelProto:
    """Inverted residuals without norms: 1x1 Conv, depthwise Conv between ReLUs, 1x1 Conv, and the sum with the stream.

    Args:
        blocks: how many of them write to the stream, behind the first convolution.
        width: channels of the stream, named "stem".
        scaled: whether a factor per channel stands in the stream.
    """
    net = Net()
    x = net.add("Conv", net.input(["n", 3, SIZE, SIZE]), net.weight(width, 3, 1, 1, name="stem"), net.weight(width))
    for number in range(blocks):
        y = net.add("Conv", x, net.weight(2 * width, width, 1, 1, name=f"expand{number}"), net.weight(2 * width))
        y = net.add("Relu", y)
        y = net.add("Conv", y, net.weight(2 * width, 1, 3, 3), net.weight(2 * width), group=2 * width, pads=[1] * 4)
        y = net.add("Conv", net.add("Relu", y), net.weight(width, 2 * width, 1, 1), net.weight(width))
        x = net.add("Add", x, y)
    if scaled:
        x = net.add("Mul", x, net.const(net.rng.uniform(0.5, 2, (width, 1, 1)).astype(np.float32)))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.output(net.add("Gemm", x, net.weight(width, 5, name="classes"), net.weight(5)))
    return net.proto()


def attention(*, heads: int = 2, size: int = 4) -> onnx.ModelProto:
    """Attention over a sequence of five, of which the values go through linear nodes alone up to the last product."""
    net, width = Net(), heads * size
    x = net.input(["n", 5, width])

    def split(name: str) -> str:
        made = net.add(
            "Reshape", net.add("MatMul", x, net.weight(width, width, name=name)), net.ints(0, 0, heads, size)
        )
        return str(net.add("Transpose", made, perm=[0, 2, 1, 3]))

    turned = net.add("Transpose", split("key"), perm=[0, 1, 3, 2])
    weights = net.add("Softmax", net.add("MatMul", split("query"), turned), axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", weights, split("value")), perm=[0, 2, 1, 3])
    joined = net.add("Reshape", mixed, net.ints(0, 0, width))
    net.output(net.add("MatMul", joined, net.weight(width, width, name="out")))
    return net.proto()


def normed(
    *, norm: str = "", tied: bool = True, blocks: int = 2, width: int = WIDTH, words: int = 16
) -> onnx.ModelProto:
    """A table of embeddings, blocks behind norms by the root of the mean square, and a last norm and layer.

    Args:
        norm: the operator of the norms; in single steps where empty.
        tied: whether the last layer is the table, turned around.
        blocks: how many of them add to the stream.
        width: channels of the stream.
    """
    net, words = Net(opset=23), 16
    ids, table = net.input(["n", 5], "ids", TensorProto.INT64), net.weight(words, width, name="table", scale=1.0)
    x = net.add("Gather", table, ids)

    def scaled(x: str, number: int) -> str:
        scale = net.const(net.rng.uniform(0.5, 2, width).astype(np.float32), name=f"scale{number}")
        if norm:
            return str(net.add(norm, x, scale, axis=-1))
        square = net.add("ReduceMean", net.add("Pow", x, net.const(np.float32(2))), net.ints(-1), keepdims=1)
        root = net.add("Sqrt", net.add("Add", square, net.const(np.float32(1e-5))))
        return str(net.add("Mul", net.add("Div", x, root), scale))

    for number in range(blocks):
        y, up = scaled(x, number), net.weight(width, 2 * width, name=f"up{number}")
        x = net.add(
            "Add", x, net.add("MatMul", net.add("Relu", net.add("MatMul", y, up)), net.weight(2 * width, width))
        )
    last = net.add("Transpose", table, perm=[1, 0]) if tied else net.weight(width, words, name="last")
    net.output(net.add("MatMul", scaled(x, blocks), last))
    return net.proto()
