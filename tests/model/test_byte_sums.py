"""Quantised models whose sums of bytes are the same on every processor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from onnxprune.model import Model, load, unsaturated
from onnxprune.model.shapes.infer import infer
from tests.graphs.net import Net, run

LEFT = np.random.default_rng(0).integers(200, 256, (3, 32)).astype(np.uint8)
RIGHT = np.random.default_rng(1).integers(90, 128, (32, 5)).astype(np.int8)
COLUMNS = np.array([3, -4, 5, 6, 7], np.int8)


def product(left: np.ndarray, right: np.ndarray, zeros: Sequence[np.ndarray | np.generic | None]) -> Model:
    """A product of two stored matrices of whole numbers; a zero point that is None is left out."""
    net = Net(21)
    net.input([1])
    given = ["" if zero is None else net.const(zero) for zero in zeros]
    net.output(net.add("MatMulInteger", net.const(left), net.const(right), *given))
    return load(net.proto())


def variant(model: Model) -> Model:
    return unsaturated(model, infer(model).dtypes)


@pytest.mark.parametrize("zeros", [(), (np.uint8(100),), (None, np.int8(20)), (np.uint8(9), COLUMNS)])
def test_no_sum_saturates(zeros: Sequence[np.ndarray | np.generic | None]) -> None:
    """Whatever zero points there are: none, of one factor, of every column."""
    model = product(LEFT, RIGHT, zeros)
    left, right = (int(z) if z is not None and z.ndim == 0 else z for z in (*zeros, None, None)[:2])
    wanted = (LEFT.astype(int) - (left or 0)) @ (RIGHT.astype(int) - (0 if right is None else right))
    (found,) = run(variant(model)).values()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("left", "right"), [(np.uint8, np.uint8), (np.int8, np.int8)])
def test_what_does_not_saturate_stays_as_it_is(left: type[np.generic], right: type[np.generic]) -> None:
    model = product(LEFT.astype(left), RIGHT.astype(right), ())
    assert variant(model) is model


def looped(depth: int) -> Model:
    """A product of bytes inside of loops of one step; weights and zero points are those of the graph around."""
    net = Net(21)
    net.input([1])
    held = {name: net.const(value) for name, value in (("left", LEFT), ("right", RIGHT), ("zero", np.uint8(7)))}
    once, on = net.const(np.int64(1)), net.const(np.bool_(True))
    shape = onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT32, [3, 5])

    def body(inner: list[onnx.NodeProto], made: str, level: int) -> onnx.GraphProto:
        step = onnx.helper.make_tensor_value_info(f"step{level}", onnx.TensorProto.INT64, [])
        go = onnx.helper.make_tensor_value_info(f"go{level}", onnx.TensorProto.BOOL, [])
        goes = onnx.helper.make_tensor_value_info(f"goes{level}", onnx.TensorProto.BOOL, [])
        nodes = [onnx.helper.make_node("Identity", [go.name], [goes.name]), *inner]
        return onnx.helper.make_graph(
            nodes, f"body{level}", [step, go], [goes, onnx.helper.make_value_info(made, shape)]
        )

    inner = [onnx.helper.make_node("MatMulInteger", [held["left"], held["right"], held["zero"]], ["made0"])]
    for level in range(depth):
        inner = [
            onnx.helper.make_node("Loop", [once, on], [f"all{level}"], body=body(inner, f"made{level}", level)),
            onnx.helper.make_node("Reshape", [f"all{level}", net.const(np.array([3, 5]))], [f"made{level + 1}"]),
        ]
    net.nodes.extend(inner)
    net.output(f"made{depth}")
    return load(net.proto())


@pytest.mark.parametrize("depth", [1, 2])
def test_no_sum_saturates_in_bodies(depth: int) -> None:
    model = looped(depth)
    (found,) = run(variant(model)).values()
    np.testing.assert_array_equal(found, (LEFT.astype(int) - 7) @ RIGHT.astype(int))
    assert variant(model) is not model
