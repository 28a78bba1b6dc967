"""Initializers that are graph inputs too: defaults that a caller may override."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import api
from onnxprune.cli import main
from onnxprune.report import text
from onnxprune.tracing.rules.node_view import OVERRIDABLE
from tests.graphs.net import Net, feeds_of, prune, run, with_arrays

Override = dict[str, np.ndarray]


def listed(proto: onnx.ModelProto, *names: str, shape: Sequence[int | str] | None = None) -> onnx.ModelProto:
    """`proto` with these initializers (all where none is named) among its inputs."""
    for tensor in proto.graph.initializer:
        if not names or tensor.name in names:
            dims = tensor.dims if shape is None else shape
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, dims))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def ends(net: Net, tensor: str, axis: int, shape: Sequence[int | str]) -> onnx.ModelProto:
    """The model whose last layer contracts `axis` of `tensor`."""
    net.read(tensor, axis)
    net.outputs[-1].CopyFrom(helper.make_tensor_value_info(net.outputs[-1].name, TensorProto.FLOAT, shape))
    return net.proto()


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def gathered() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    made = net.add("Gather", net.make([2, 12], 1), net.const(ints(0, 1, 2, 3), "index"), axis=1)
    return listed(ends(net, made, 1, [2, 4]), "index"), [{"index": ints(8, 9, 10, 11)}]


def gathered_by_a_sum() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    index = net.add("Add", net.const(ints(0, 1, 2, 3), "index"), net.ints(1))
    made = net.add("Gather", net.make([2, 12], 1), index, axis=1)
    return listed(ends(net, made, 1, [2, 4]), "index"), [{"index": ints(6, 7, 9, 10)}]


def reshaped() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    made = net.add("Reshape", net.make([2, 12], 1), net.const(ints(2, 3, 4), "target"))
    made = net.add("Relu", made)
    net.output(made, ["a", "b", "c"])
    return listed(net.proto(), "target"), [{"target": ints(2, 4, 3)}, {"target": ints(2, 12, 1)}]


def reshaped_by_a_computed_target() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    target = net.add("Concat", net.ints(2), net.const(ints(3, 4), "target"), axis=0)
    made = net.add("Reshape", net.make([2, 12], 1), target)
    net.output(made, ["a", "b", "c"])
    proto = net.proto()
    proto.graph.value_info.append(helper.make_tensor_value_info(made, TensorProto.FLOAT, [2, 3, 4]))
    return listed(proto, "target"), [{"target": ints(4, 3)}]


def padded() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    made = net.add("Pad", net.make([2, 12], 1), net.const(ints(0, 2, 0, 2), "amounts"))
    net.output(made, ["a", "b"])
    return listed(net.proto(), "amounts"), [{"amounts": ints(0, 0, 0, 0)}, {"amounts": ints(0, 1, 0, 3)}]


def sliced() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    made = net.add("Slice", net.make([2, 12], 1), net.const(ints(0), "start"), net.ints(6), net.ints(1))
    net.output(made, ["a", "b"])
    return listed(net.proto(), "start"), [{"start": ints(3)}]


def resized() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    x = net.add("Conv", net.input([1, 3, 4, 4]), net.weight(8, 3, 1, 1, name="w_in"))
    made = net.add("Resize", x, "", net.const(np.array([1, 1, 2, 2], np.float32), "scales"))
    net.output(made, ["a", "b", "c", "d"])
    return listed(net.proto(), "scales"), [{"scales": np.array([1, 2, 1, 1], np.float32)}]


def filled() -> tuple[onnx.ModelProto, list[Override]]:
    """Rows of ones, as many as a caller says, in front of the channels."""
    net = Net()
    ones = numpy_helper.from_array(np.ones(1, np.float32))
    made = net.add("ConstantOfShape", net.const(ints(2, 12), "shape"), value=ones)
    made = net.add("Concat", made, net.make([2, 12], 1), axis=0)
    return listed(ends(net, made, 1, ["a", 4]), "shape"), [{"shape": ints(1, 12)}]


def chosen() -> tuple[onnx.ModelProto, list[Override]]:
    """A branch that is taken or not."""
    net = Net()
    hidden = net.make([2, 12], 1)
    typed = helper.make_tensor_value_info("made", TensorProto.FLOAT, [2, 12])
    bodies = [
        helper.make_graph([helper.make_node(op, [hidden], ["made"])], op, [], [typed]) for op in ("Relu", "Sigmoid")
    ]
    condition = net.const(np.array(True), "condition")
    made = net.add("If", condition, then_branch=bodies[0], else_branch=bodies[1])
    return listed(ends(net, made, 1, [2, 4]), "condition"), [{"condition": np.array(False)}]


def scaled() -> tuple[onnx.ModelProto, list[Override]]:
    """Ones that two layers share; whoever feeds others, feeds them to both."""
    net = Net()
    ones = net.const(np.ones(12, np.float32), "ones")
    made = net.add("Mul", net.make([2, 12], 1), ones)
    made = net.add("Mul", net.add("MatMul", made, net.weight(12, 12, name="w_mid")), ones)
    return listed(ends(net, made, 1, [2, 4]), "ones"), [{"ones": np.arange(12, dtype=np.float32)}]


def shifted() -> tuple[onnx.ModelProto, list[Override]]:
    """Zeros on one side of a Concat, which are none if a caller says so."""
    net = Net()
    made = net.add("Concat", net.make([2, 12], 1), net.const(np.zeros((2, 4), np.float32), "zeros"), axis=1)
    return listed(ends(net, made, 1, [2, 4]), "zeros"), [{"zeros": np.ones((2, 4), np.float32)}]


def clipped() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    limit = net.const(np.array(6, np.float32), "limit")
    made = net.add("Clip", net.make([2, 12], 1), net.const(np.array(0, np.float32)), limit)
    return listed(ends(net, made, 1, [2, 4]), "limit"), [{"limit": np.array(0.5, np.float32)}]


def quantised() -> tuple[onnx.ModelProto, list[Override]]:
    net = Net()
    x = net.input([2, 6])
    stored = net.const(net.rng.integers(-100, 100, (6, 12)).astype(np.int8), "stored")
    scale = net.const(np.full(12, 0.01, np.float32), "scale")
    zero = net.const(np.zeros(12, np.int8), "zero")
    made = net.add("MatMul", x, net.add("DequantizeLinear", stored, scale, zero, axis=1))
    proto = listed(ends(net, made, 1, [2, 4]), "stored", "scale", "zero")
    return proto, [{"scale": np.linspace(0.01, 0.1, 12, dtype=np.float32)}, {"zero": np.full(12, 3, np.int8)}]


CASES: tuple[Callable[[], tuple[onnx.ModelProto, list[Override]]], ...] = (
    *(gathered, gathered_by_a_sum, reshaped, reshaped_by_a_computed_target, padded, sliced, resized, filled, chosen),
    *(scaled, shifted, clipped, quantised),
)


def narrowed(outcome: api.Outcome, original: onnx.ModelProto, given: Override) -> Override:
    """What a caller feeds the smaller model: the axes that the report names, without what went."""
    masks = outcome.plan.masks(original)
    found = dict(given)
    for change in outcome.io_changes:
        if change.name in given:
            rest = tuple(a for a in range(given[change.name].ndim) if a != change.axis)
            kept = np.flatnonzero(masks[change.name].any(axis=rest))
            found[change.name] = np.take(found[change.name], kept, change.axis)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_whatever_a_caller_feeds_the_smaller_model_is_the_original_with_zeros(case: Any) -> None:
    proto, overrides = case()
    defaults = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    try:
        outcome = prune(proto)
    except onnxprune.errors.GoalMissed:
        reasons = [barrier.reason for barrier in api.trace(proto).barriers]
        assert any(OVERRIDABLE in reason for reason in reasons), reasons
        return
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    small = outcome.model.proto
    assert [v.name for v in small.graph.input] == [v.name for v in proto.graph.input]
    masks = outcome.plan.masks(proto)
    stored = {n: np.where(m, defaults[n], 0).astype(defaults[n].dtype) for n, m in masks.items() if n not in ("scale",)}
    for given in ({}, *overrides):
        fed = {n: np.where(masks.get(n, True), x, 0).astype(x.dtype) if n != "scale" else x for n, x in given.items()}
        wanted = run(with_arrays(proto, stored), feeds=feeds_of(proto) | fed)
        found = run(small, feeds=feeds_of(proto) | narrowed(outcome, proto, given))
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def two_layers(ir_version: int) -> onnx.ModelProto:
    net = Net(opset=8 if ir_version == 3 else 17, ir_version=ir_version)
    x = net.add("Relu", net.add("MatMul", net.input([2, 6]), net.weight(6, 8, name="first")))
    x = net.add("Reshape", x, net.const(ints(2, 8), "target"))
    net.output(net.add("MatMul", x, net.weight(8, 3, name="second")), [2, 3])
    return net.proto()


@pytest.mark.parametrize(("ir_version", "names"), [(3, ()), (8, ("first",)), (8, ("second", "first"))])
def test_weights_shrink_with_their_declared_inputs_and_the_report_says_so(
    ir_version: int, names: tuple[str, ...]
) -> None:
    proto = two_layers(ir_version)
    outcome = prune(listed(proto, *names) if names else proto)
    names = names or ("first", "second")
    assert {(c.kind, c.name, c.axis, c.before, c.after) for c in outcome.io_changes} == {
        ("default", name, 1 if name == "first" else 0, 8, 4) for name in names
    }
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in outcome.model.proto.graph.input}
    assert {n: s for n, s in sizes.items() if n in names} == {
        name: [6, 4] if name == "first" else [4, 3] for name in names
    }
    assert "changed  input first with its stored value: axis 1 8 -> 4" in text.outcome(outcome)


def test_before_ir_version_4_a_listed_size_is_a_constant() -> None:
    """No runtime lets a caller override it: ONNX Runtime refuses the name."""
    groups = api.trace(two_layers(3))
    assert groups.prunable[0] == groups.prunable[1]
    assert api.trace(listed(two_layers(8), "target")).prunable[0] == 0


def test_a_size_of_a_default_with_free_sizes_is_not_known() -> None:
    """Its declaration leaves room for another length, so its length says nothing."""
    net = Net()
    table = net.const(np.ones((4, 5), np.float32), "table")
    rows = net.add("Gather", net.add("Shape", table), net.ints(0), axis=0)
    made = net.add("Reshape", net.make([2, 12], 1), net.add("Concat", net.ints(2, -1), rows, axis=0))
    net.output(made, ["a", "b", "c"])
    groups = api.trace(listed(net.proto(), "table", shape=["rows", 5]))
    assert groups.static.dynamic[made] == {1, 2}
    assert groups.prunable[0] == 0


def test_an_unused_default_stays_an_input() -> None:
    net = Net()
    net.const(np.ones(3, np.float32), "unused")
    outcome = prune(listed(ends(net, net.make([2, 12], 1), 1, [2, 4]), "unused"))
    assert [v.name for v in outcome.model.proto.graph.input] == ["x", "unused"]
    assert run(outcome.model.proto, feeds=feeds_of(outcome.model.proto) | {"unused": np.zeros(3, np.float32)})


def test_json_lists_every_default_that_shrank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(listed(two_layers(8), "first", "second"), tmp_path / "m.onnx")
    assert main(["prune", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "s.onnx"), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["io_changes"]
    assert [(c["kind"], c["name"], c["axis"]) for c in changes] == [
        ("default", "first", 1),
        ("default", "second", 0),
    ]
