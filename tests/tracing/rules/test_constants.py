"""Operators that make tensors, or read only the shape of one."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.graphs.net import FLOAT, INT64, Net, group_of, prune, shapes_of
from tests.graphs.sandwich import Case, check_case, parameters

MADE = "axis made by the operator"
LIKE = "its size is the size of something else"


def shape_scaled(net: Net, x: str) -> str:
    """Divided by the square root of the width that the model reads off the tensor."""
    size = net.add("Gather", net.add("Shape", x), net.const(np.int64(2)))
    return net.add("Div", x, net.add("Sqrt", net.cast(size, FLOAT)))


def shape_of_part(net: Net, x: str) -> str:
    size = net.cast(net.add("Shape", x, start=-1), FLOAT)
    return net.add("Mul", x, size)


def size_scaled(net: Net, x: str) -> str:
    return net.add("Div", x, net.cast(net.add("Size", x), FLOAT))


def size_beside(net: Net, x: str) -> str:
    """The size of another tensor locks nothing here."""
    size = net.cast(net.add("Size", net.inputs[0].name), FLOAT)
    return net.add("Div", x, size)


def positions(net: Net, x: str) -> str:
    """A position per channel: its values would shift."""
    last = net.add("Gather", net.add("Shape", x), net.const(np.int64(2)))
    line = net.add("Range", net.const(np.int64(0)), last, net.const(np.int64(1)))
    return net.add("Add", x, net.cast(line, FLOAT))


def positions_across(net: Net, x: str) -> str:
    line = net.add("Range", net.const(np.float32(0)), net.const(np.float32(5)), net.const(np.float32(1)))
    return net.add("Add", x, net.add("Reshape", line, net.ints(5, 1)))


def constant(net: Net, x: str) -> str:
    value = helper.make_tensor("", FLOAT, [8], net.rng.standard_normal(8).astype(np.float32))
    return net.add("Mul", x, net.add("Constant", value=value, name="c_factor"))


def constant_floats(net: Net, x: str) -> str:
    value = [float(v) for v in net.rng.standard_normal(8)]
    return net.add("Mul", x, net.add("Constant", value_floats=value, name="c_factor"))


def constant_across(net: Net, x: str) -> str:
    value = helper.make_tensor("", FLOAT, [5, 1], net.rng.standard_normal(5).astype(np.float32))
    return net.add("Mul", x, net.add("Constant", value=value, name="c_factor"))


def eye_like(net: Net, x: str) -> str:
    return net.add("MatMul", x, net.add("EyeLike", net.add("MatMul", net.add("Transpose", x, perm=[1, 0]), x)))


def like(op: str):
    """Noise of no width, so that runs agree."""

    def build(net: Net, x: str) -> str:
        attrs = {"scale": 1e-7, "mean": 1.0} if "Normal" in op else {"low": 1.0, "high": 1.0}
        return net.add("Mul", x, net.add(op, x, **attrs))

    return build


def drawn(op: str, shape: list[int]):
    def build(net: Net, x: str) -> str:
        attrs = {"scale": 1e-7, "mean": 1.0} if "Normal" in op else {"low": 1.0, "high": 1.0}
        return net.add("Mul", x, net.add(op, shape=shape, **attrs))

    return build


def one_hot(axis: int):
    def build(net: Net, x: str) -> str:
        index = net.cast(net.add("Abs", net.add("Mul", x, net.const(np.float32(2)))), INT64)
        values = net.const(np.array([0.5, 2.0], np.float32))
        return net.add("OneHot", index, net.const(np.int64(4)), values, axis=axis)

    return build


CASES = [
    Case("Shape", "scale", shape_scaled),
    Case("Shape", "start", shape_of_part, since=15),
    Case("Size", "own", size_scaled),
    Case("Size", "beside", size_beside),
    Case("Range", "along", positions, units=0, why="", since=11),
    Case("Range", "across", positions_across, since=11),
    Case("Constant", "along", constant),
    Case("Constant", "floats", constant_floats, since=12),
    Case("Constant", "across", constant_across),
    Case("EyeLike", "", eye_like, (5, 8), 1, 1, units=0, why=LIKE),
    *(Case(op, "", like(op), units=0, why=LIKE, until=21) for op in ("RandomNormalLike", "RandomUniformLike")),
    *(Case(op, "along", drawn(op, [8]), units=0, why=MADE, until=21) for op in ("RandomNormal", "RandomUniform")),
    *(Case(op, "across", drawn(op, [5, 1]), until=21) for op in ("RandomNormal", "RandomUniform")),
    Case("OneHot", "last", one_hot(-1)),
    Case("OneHot", "middle", one_hot(1), out=3),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_source(case: Case, version: int) -> None:
    check_case(case, version)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("batch", [2, "batch"])
def test_a_scale_that_is_computed_from_shapes_keeps_its_value(opset: int, batch: int | str) -> None:
    """Attention divides by the square root of the head size; the pruned model must divide by the original one."""
    net = Net(opset)
    x = net.input([batch, 5, 12])
    heads = []
    for name in "qkv":
        made = net.add("MatMul", x, net.weight(12, 24, name=f"w_{name}"))
        shape = net.add("Shape", made)
        front = [net.add("Gather", shape, net.ints(i)) for i in (0, 1)]
        target = net.add("Concat", *front, net.ints(4, 6), axis=0)
        heads.append(net.add("Transpose", net.add("Reshape", made, target), perm=[0, 2, 1, 3]))
    q, k, v = heads
    size = net.cast(net.add("Gather", net.add("Shape", q), net.const(np.int64(-1))), FLOAT)
    scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.add("Div", scores, net.add("Sqrt", size))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=3 if opset < 13 else -1), v)
    back = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, 0, 24))
    net.output(net.add("MatMul", back, net.weight(24, 12, name="w_o")), [batch, 5, 12])
    for head_dims, kind, units in ((True, "head dim", 6), (False, "head", 4)):
        outcome = prune(net.proto(), head_dims=head_dims)
        assert outcome.verdict is not None
        assert outcome.verdict.ok, outcome.verdict.problem
        assert outcome.rolled_back == ()
        group = group_of(outcome.groups, "w_q", 1)
        assert group is not None
        assert (group.kind, group.units, group.exact) == (kind, units, True)
        shapes = shapes_of(outcome.model)
        assert shapes["w_q"] == shapes["w_k"] == shapes["w_v"] == (12, 12)
        assert shapes["w_o"] == (12, 12)
