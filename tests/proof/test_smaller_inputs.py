"""Models that fix large inputs are proven at smaller ones, unless something in the graph asks for the size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune.proof import smaller_inputs
from tests.graphs.branches import in_branches
from tests.graphs.net import BOOL, FLOAT, INT64, Net, array_of, prune, with_arrays


def backbone(net: Net, size: int = 256) -> str:
    x = net.input([1, 3, size, size], "x")
    for index, (n, m) in enumerate(((3, 12), (12, 16), (16, 20))):
        weight = net.weight(m, n, 3, 3, name=f"w{index}")
        x = net.add("Relu", net.add("Conv", x, weight, strides=[2, 2], pads=[1, 1, 1, 1]))
    return x


def detector(size: int = 256) -> onnx.ModelProto:
    """Boxes of every place, from two maps of which one is resized."""
    net = Net(17)
    x = backbone(net, size)
    low = net.add("Relu", net.add("Conv", x, net.weight(20, 20, 3, 3, name="low"), strides=[2, 2], pads=[1, 1, 1, 1]))
    up = net.add("Resize", low, "", net.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    x = net.add("Conv", net.add("Concat", x, up, axis=1), net.weight(8, 40, 1, 1, name="head"))
    x = net.add("Reshape", net.add("Transpose", x, perm=[0, 2, 3, 1]), net.ints(1, -1, 4))
    net.output(net.add("Sigmoid", x))
    return net.proto()


def classes(_: int = 0) -> onnx.ModelProto:
    net = Net(17)
    x = net.add("Flatten", net.add("GlobalAveragePool", backbone(net)))
    net.output(net.add("MatMul", x, net.weight(20, 5, name="fc")), [1, 5])
    return net.proto()


def places() -> onnx.ModelProto:
    """A table of positions is added."""
    net = Net(17)
    x = net.add("Add", backbone(net), net.weight(1, 1, 32, 32, name="places"))
    net.output(net.add("Conv", x, net.weight(5, 20, 1, 1, name="head")), [1, 5, 32, 32])
    return net.proto()


def target() -> onnx.ModelProto:
    """A target of a Reshape names the size."""
    net = Net(17)
    x = net.add("Reshape", backbone(net), net.ints(1, 20, 32 * 32))
    net.output(net.add("Conv", x, net.weight(5, 20, 1, name="head")), [1, 5, 1024])
    return net.proto()


def flat() -> onnx.ModelProto:
    """Every position has a weight of its own."""
    net = Net(17)
    x = net.add("Flatten", net.add("MaxPool", backbone(net), kernel_shape=[8, 8], strides=[8, 8]))
    net.output(net.add("MatMul", x, net.weight(20 * 16, 5, name="fc")), [1, 5])
    return net.proto()


def transposed() -> onnx.ModelProto:
    """An attribute names the size, which shape inference believes and a run does not."""
    net = Net(17)
    x = net.add(
        "ConvTranspose", backbone(net), net.weight(20, 6, 2, 2, name="up"), strides=[2, 2], output_shape=[64, 64]
    )
    net.output(net.add("Conv", net.add("Relu", x), net.weight(5, 6, 1, 1, name="head")), [1, 5, 64, 64])
    return net.proto()


def branched(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    """The same in both branches of an If."""

    def both() -> onnx.ModelProto:
        return in_branches(build())

    both.__name__ = f"branched {build.__name__}"
    return both


def looped() -> onnx.ModelProto:
    """A layer that is applied three times, in a loop whose body declares the size of what it is given."""
    net = Net(17)
    x = backbone(net)
    info, kept = helper.make_tensor_value_info, [1, 20, 32, 32]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Conv", ["state", net.weight(24, 20, 1, 1, name="u")], ["wide"]),
            helper.make_node("Relu", ["wide"], ["positive"]),
            helper.make_node("Conv", ["positive", net.weight(20, 24, 1, 1, name="v")], ["next"]),
        ],
        "body",
        [info("step", INT64, []), info("going", BOOL, []), info("state", FLOAT, kept)],
        [info("goes", BOOL, []), info("next", FLOAT, kept)],
    )
    last = net.add("Loop", net.const(np.array(3)), "", x, body=body)
    net.output(net.add("Conv", last, net.weight(5, 20, 1, 1, name="head")), [1, 5, 32, 32])
    return net.proto()


@pytest.fixture(autouse=True)
def every_run_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaller_inputs, "LARGE_RUN", 0)


def sizes_of_runs(outcome: onnxprune.PruneResult) -> list[str]:
    verdict = outcome.report.verdict
    assert verdict is not None
    assert verdict.ok
    return [said for said in verdict.checks if said.startswith("at ")]


@pytest.mark.parametrize("build", [detector, classes, branched(detector), branched(classes), looped])
def test_runs_take_smaller_inputs_where_nothing_asks_for_the_size(build: Callable[..., onnx.ModelProto]) -> None:
    proto = build()
    result = onnxprune.prune(proto, 0.5)
    assert sizes_of_runs(result) == ["at x: 1x3x128x128"]
    assert [d.dim_value for d in result.model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 256, 256]
    verdict = result.report.verdict
    assert verdict is not None
    assert verdict.strength is not None
    assert verdict.strength.noticed == verdict.strength.groups


@pytest.mark.parametrize("build", [places, target, flat, transposed, branched(places), branched(target)])
def test_runs_take_the_declared_size_where_something_asks_for_it(build: Callable[..., onnx.ModelProto]) -> None:
    result = onnxprune.prune(build(), 0.5)
    assert sizes_of_runs(result) == []
    assert result.report.rolled_back == ()


@pytest.mark.parametrize("name", ["w0", "w2", "low", "head"])
def test_a_wrong_weight_is_refused_at_smaller_inputs(name: str) -> None:
    proto = detector()
    result = onnxprune.prune(proto, 0.5)
    value = array_of(result.model, name).copy()
    value.reshape(-1)[np.abs(value).argmax()] *= 1.5
    verdict = onnxprune.verify(proto, with_arrays(result.model, {name: value}), result.plan)
    assert not verdict.ok
    assert "of Conv" in verdict.problem


def test_another_declared_size_is_refused() -> None:
    result = onnxprune.prune(detector(), 0.5)
    result.model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 512
    verdict = onnxprune.verify(detector(), result.model, result.plan)
    assert verdict.problem == "the graph inputs changed"


def other_at(size: int, kind: str) -> tuple[onnx.ModelProto, onnxprune.Plan]:
    """A smaller model that is right up to a size only."""
    result = onnxprune.prune(classes(), 0.5)
    graph = result.model.graph
    graph.node[0].input[0] = "wrong"
    if kind == "Slice":
        parts = {"zero": [0, 0], "end": [size, size], "axes": [2, 3]}
        graph.node.insert(0, helper.make_node("Slice", ["x", "zero", "end", "axes"], ["wrong"]))
    else:
        parts = {"most": [1, 3, size, size]}
        nodes = [("Shape", "x", "s"), ("Greater", "s most", "g"), ("Cast", "g", "c"), ("ReduceSum", "c", "r")]
        for place, (op, inputs, made) in enumerate(nodes):
            given = {"to": 1} if op == "Cast" else {"keepdims": 0} if op == "ReduceSum" else {}
            graph.node.insert(place, helper.make_node(op, inputs.split(), [made], **given))
        graph.node.insert(4, helper.make_node("Add", ["x", "r"], ["wrong"]))
    for name, value in parts.items():
        graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [len(value)], value))
    return result.model, result.plan


@pytest.mark.parametrize("kind", ["Slice", "Shape"])
def test_a_model_that_is_right_at_smaller_inputs_only_is_refused(kind: str) -> None:
    model, plan = other_at(128, kind)
    verdict = onnxprune.verify(classes(), model, plan)
    assert not verdict.ok
    assert "differs from the masked original" in verdict.problem


def test_a_branch_that_is_right_at_smaller_inputs_only_is_refused() -> None:
    proto = in_branches(classes())
    result = onnxprune.prune(proto, 0.5)
    for name, size in (("zero", 0), ("end", 128)):
        result.model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [2], [size, size]))
    result.model.graph.initializer.append(helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3]))
    branch = result.model.graph.node[-1].attribute[1].g
    assert branch.node[0].input[0] == "x"
    branch.node[0].input[0] = "wrong"
    branch.node.insert(0, helper.make_node("Slice", ["x", "zero", "end", "axes"], ["wrong"]))
    verdict = onnxprune.verify(proto, result.model, result.plan)
    assert not verdict.ok
    assert "differs from the masked original" in verdict.problem


def test_small_runs_keep_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace would take longer."""
    monkeypatch.setattr(smaller_inputs, "LARGE_RUN", 1 << 24)
    verdict = prune(detector()).verdict
    assert verdict is not None
    assert not any(said.startswith("at ") for said in verdict.checks)
