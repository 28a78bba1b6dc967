"""One node, run alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxprune.errors import RunError
from onnxprune.model import load
from onnxprune.runtime.single_node import NodeRunner, in_single
from tests.graphs.net import Net


def runner(op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> NodeRunner:
    net = Net()
    net.output(net.add("Relu", net.input([2])))
    node = helper.make_node(op, inputs, [f"y{i}" for i in range(outputs)], **attributes)
    return NodeRunner(load(net.proto()), node)


def test_a_node_is_run_for_values_of_any_size() -> None:
    add = runner("Add", "a", "b")
    for size in (3, 5):
        (y,) = add({0: np.ones((2, size), np.float32), 1: np.full((2, size), 2.0, np.float32)})
        assert y.shape == (2, size) and (y == 3).all()


def test_inputs_that_are_left_out_and_sizes_that_must_be_seen() -> None:
    resize = runner("Resize", "x", "", "scales", mode="nearest")
    (y,) = resize({0: np.ones((1, 1, 2, 2), np.float32), 2: np.float32([1, 1, 2, 3])})
    assert y.shape == (1, 1, 4, 6)
    (y,) = resize({0: np.ones((1, 1, 2, 2), np.float32), 2: np.float32([1, 1, 1, 1])})
    assert y.shape == (1, 1, 2, 2), "other numbers, another session"


def test_outputs_that_nobody_asks_for_are_empty() -> None:
    node = runner("MaxPool", "x", outputs=2, kernel_shape=[2])
    node._node.output[1] = ""
    values, places = node({0: np.float32([[[3, 1, 2]]])})
    assert values.tolist() == [[[3, 2]]] and places.size == 0


def test_half_precision_is_run_in_single() -> None:
    (y,) = runner("Mul", "a", "b")({0: np.float16([300.0]), 1: np.float16([300.0])})
    assert y.dtype == np.float32 and y.tolist() == [90000.0], "half would be infinite"


@pytest.mark.parametrize(
    ("dtype", "single"), [(np.float16, np.float32), (np.float32, np.float32), (np.int16, np.int16)]
)
def test_only_halves_change(dtype: type, single: type) -> None:
    assert in_single(np.ones(2, dtype)).dtype == single


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(RunError):
        runner("MatMul", "a", "b")({0: np.ones((2, 3), np.float32), 1: np.ones((2, 3), np.float32)})
