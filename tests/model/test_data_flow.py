"""The way of data through a graph, and what only asks for sizes."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.model import load
from onnxprune.model.data_flow import DataFlow
from onnxprune.model.flatten import flattened
from onnxprune.model.shapes.infer import infer
from tests.graphs.net import Net


def flow_of(proto: onnx.ModelProto) -> DataFlow:
    model = flattened(load(proto))
    return DataFlow(model, infer(model))


def diamond() -> DataFlow:
    """x -> a -> (b, c) -> d, and the size of a into a reshape of d."""
    net = Net()
    a = net.add("Relu", net.input([2, 6]), name="a")
    b, c = net.add("Sigmoid", a, name="b"), net.add("Tanh", a, name="c")
    d = net.add("Add", b, c, name="d")
    net.output(net.add("Reshape", d, net.add("Shape", a, name="s"), name="y"), [2, 6])
    return flow_of(net.proto())


def test_sizes_are_no_data() -> None:
    flow = diamond()
    assert flow.inputs == {"x"} and flow.outputs == {"y"}
    assert {"x", "a", "b", "c", "d", "y"} <= flow.data and "s" not in flow.data


def test_steps_between_two_tensors() -> None:
    flow = diamond()

    def names(entry: str, exit: str) -> list[str]:
        return [flow.steps[i].output[0] for i in flow.between(entry, exit)]

    assert sorted(names("a", "d")) == ["b", "c", "d"] and names("b", "d") == ["d"]
    assert sorted(names("x", "y")) == ["a", "b", "c", "d", "y"], "who asks for a size lies on no way"
    assert names("b", "c") == []


@pytest.mark.parametrize(
    ("tensor", "on", "depends"),
    [("d", "a", True), ("d", "x", True), ("b", "c", False), ("a", "d", False), ("x", "x", True), ("x", "a", False)],
)
def test_dependence(tensor: str, on: str, depends: bool) -> None:
    assert diamond().depends(tensor, on) is depends


def test_who_makes_and_reads_a_tensor() -> None:
    flow = diamond()
    node = flow.node("b")
    assert node is not None and node.op_type == "Sigmoid" and flow.node("x") is None
    assert sorted(flow.steps[i].output[0] for i in flow.consumers["a"]) == ["b", "c", "s"]
    assert list(flow.places(0b10110)) == [1, 2, 4]


def test_floats_and_sizes() -> None:
    flow = diamond()
    assert flow.is_float("a") and not flow.is_float("s") and flow.dims("d") is not None
