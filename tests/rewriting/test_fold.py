"""Constants folded into contractions, and contractions into one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxprune.model import file_size
from onnxprune.rewriting.fold import folded
from tests.graphs.net import Net
from tests.pipelines.test_compress import proven


def norm(net: Net, x: str, width: int) -> str:
    lines = [net.const(net.rng.uniform(low, low + 1, width).astype(np.float32)) for low in (0.5, -0.5, -0.5, 0.5)]
    return net.add("BatchNormalization", x, *lines)


def conv(net: Net, x: str, inner: int, outer: int, *, bias: bool = True, k: int = 3, op: str = "Conv", **attrs) -> str:
    group = attrs.get("group", 1)
    shape = (outer, inner // group, k, k) if op == "Conv" else (inner, outer // group, k, k)
    return net.add(op, x, net.weight(*shape), *([net.weight(outer)] if bias else []), **attrs)


IMAGE = ("batch", 4, 7, 7)
BEHIND = {
    "conv": lambda net, x: norm(net, conv(net, x, 4, 6), 6),
    "conv without a bias": lambda net, x: norm(net, conv(net, x, 4, 6, bias=False), 6),
    "conv in groups": lambda net, x: norm(net, conv(net, x, 4, 6, group=2, pads=[1] * 4), 6),
    "transposed conv": lambda net, x: norm(net, conv(net, x, 4, 6, op="ConvTranspose", strides=[2, 2]), 6),
    "transposed conv in groups": lambda net, x: norm(net, conv(net, x, 4, 6, op="ConvTranspose", group=2), 6),
    "scale and shift": lambda net, x: net.add(
        "Add", net.add("Mul", conv(net, x, 4, 6), net.weight(1, 6, 1, 1)), net.weight(6, 1, 1)
    ),
    "one number": lambda net, x: net.add("Div", conv(net, x, 4, 6), net.const(np.float32(3))),
    "subtracted from": lambda net, x: net.add("Sub", net.weight(6, 1, 1), conv(net, x, 4, 6)),
    "in front, in the middle": lambda net, x: conv(net, norm(net, net.add("Relu", x), 4), 4, 6),
    "in front of two": lambda net, x: (lambda y: net.add("Add", conv(net, y, 4, 6), conv(net, y, 4, 6)))(
        norm(net, net.add("Relu", x), 4)
    ),
    "in front, without a shift, padded": lambda net, x: conv(
        net, net.add("Div", x, net.const(np.float32(255))), 4, 6, pads=[1] * 4
    ),
    "pixels": lambda net, x: conv(
        net, net.add("Div", net.add("Sub", x, net.weight(4, 1, 1)), net.const(np.full((4, 1, 1), 2, np.float32))), 4, 6
    ),
}


@pytest.mark.parametrize("name", BEHIND)
def test_constants_go_into_convolutions(name):
    net = Net()
    made = BEHIND[name](net, net.input(IMAGE))
    net.output(net.add("Relu", made), ["batch", 6, None, None])
    small, _ = folded(net.model())
    proven(net.model(), small)
    ops = {node.op_type for node in small.proto.graph.node}
    assert ops <= {"Conv", "ConvTranspose", "Relu", *(["Add"] if "two" in name else [])}, ops
    kept = {t.name for t in small.proto.graph.initializer}
    assert {t.name for t in net.weights if len(t.dims) == 4 and "w" in t.name and t.dims[2] == 3} <= kept


MATRICES = {
    "product": (lambda net, x: net.add("Mul", net.add("MatMul", x, net.weight(5, 6)), net.weight(6)), {"MatMul"}),
    "product and bias": (
        lambda net, x: net.add(
            "Div", net.add("Add", net.weight(6), net.add("MatMul", x, net.weight(5, 6))), net.const(np.float32(2))
        ),
        {"MatMul", "Add"},
    ),
    "einsum": (
        lambda net, x: net.add(
            "Mul", net.add("Einsum", x, net.weight(2, 5, 3), equation="bi,hio->bho"), net.weight(2, 3)
        ),
        {"Einsum"},
    ),
    "gemm": (
        lambda net, x: norm(net, net.add("Gemm", x, net.weight(6, 5), net.weight(6), transB=1, alpha=0.5), 6),
        {"Gemm"},
    ),
    "norm behind a product": (lambda net, x: norm(net, net.add("MatMul", x, net.weight(5, 6)), 6), {"MatMul", "Add"}),
}


@pytest.mark.parametrize("name", MATRICES)
def test_constants_go_into_products(name):
    net, (build, ops) = Net(), MATRICES[name]
    made = build(net, net.input(("batch", 5)))
    net.output(net.add("Relu", made), ["batch", *([2, 3] if name == "einsum" else [6])])
    small, done = folded(net.model())
    proven(net.model(), small)
    assert done and {node.op_type for node in small.proto.graph.node} == {*ops, "Relu"}


STAYS = {
    "a shift in front of padding": lambda net, x: conv(net, norm(net, net.add("Relu", x), 4), 4, 6, pads=[1] * 4),
    "padding that follows the size": lambda net, x: conv(
        net, norm(net, net.add("Relu", x), 4), 4, 6, auto_pad="SAME_UPPER", strides=[2, 2]
    ),
    "a constant along another axis": lambda net, x: net.add("Mul", conv(net, x, 4, 6), net.weight(5, 5)),
    "an activation's constant": lambda net, x: conv(
        net, net.add("Mul", net.add("Erf", x), net.const(np.float32(0.5))), 4, 6
    ),
    "a weight of two nodes": lambda net, x: (
        lambda w: net.add("Add", norm(net, net.add("Conv", x, w), 6), net.add("Conv", x, w))
    )(net.weight(6, 4, 3, 3)),
    "a sum that is read twice": lambda net, x: (lambda y: net.add("Add", norm(net, y, 6), y))(conv(net, x, 4, 6)),
    "an overflow": lambda net, x: net.add("Mul", conv(net, x, 4, 6), net.const(np.float32(3e38))),
    "an added axis": lambda net, x: net.add("Mul", conv(net, x, 4, 6), net.weight(1, 1, 6, 1, 1)),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_cannot_be_folded_stays(name):
    net = Net()
    made = STAYS[name](net, net.input(IMAGE))
    net.output(made, None)
    model = net.model()
    assert folded(model) == (model, ())


def test_a_result_that_is_an_output_keeps_its_constant():
    net = Net()
    made = conv(net, net.input(IMAGE), 4, 6)
    net.output(made, None)
    net.output(norm(net, made, 6), None)
    assert folded(net.model())[1] == ()


ROWS: dict[str, tuple[Callable[[Net, str], str], int, tuple[object, ...]]] = {
    "matrices": (
        lambda net, x: net.add("MatMul", net.add("MatMul", x, net.weight(6, 20)), net.weight(20, 5)),
        1,
        ("batch", 6),
    ),
    "matrices with biases": (
        lambda net, x: net.add(
            "Gemm", net.add("Gemm", x, net.weight(6, 20), net.weight(20)), net.weight(5, 20), net.weight(5), transB=1
        ),
        1,
        ("batch", 6),
    ),
    "a narrow one between": (
        lambda net, x: net.add("MatMul", net.add("MatMul", x, net.weight(6, 2)), net.weight(2, 5)),
        2,
        ("batch", 6),
    ),
    "1x1 and 3x3": (lambda net, x: conv(net, conv(net, x, 4, 20, k=1), 20, 5), 1, IMAGE),
    "1x1 without a bias and padded 3x3": (
        lambda net, x: conv(net, conv(net, x, 4, 20, k=1, bias=False), 20, 5, pads=[1] * 4),
        1,
        IMAGE,
    ),
    "1x1 with a bias and padded 3x3": (
        lambda net, x: conv(net, conv(net, x, 4, 20, k=1), 20, 5, pads=[1] * 4),
        2,
        IMAGE,
    ),
    "3x3 and 1x1": (lambda net, x: conv(net, conv(net, x, 4, 20, pads=[1] * 4), 20, 5, k=1), 1, IMAGE),
    "3x3 and 1x1 with strides": (lambda net, x: conv(net, conv(net, x, 4, 20), 20, 5, k=1, strides=[2, 2]), 2, IMAGE),
    "3x3 and 1x1 in groups": (lambda net, x: conv(net, conv(net, x, 4, 20), 20, 5, k=1, group=5), 2, IMAGE),
    "3x3 and 3x3": (lambda net, x: conv(net, conv(net, x, 4, 20), 20, 5), 2, IMAGE),
}


@pytest.mark.parametrize("name", ROWS)
def test_contractions_in_a_row_become_one_where_that_is_smaller(name):
    build, left, shape = ROWS[name]
    net = Net()
    net.output(build(net, net.input(shape)), None)
    net.outputs[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model = net.model()
    small, done = folded(model)
    proven(model, small)
    assert len(small.proto.graph.node) == left and len(done) == 2 - left
    assert file_size(small) < file_size(model) or not done
