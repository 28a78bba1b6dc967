"""`--allow-io-changes`: inputs and outputs that shrink."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api
from onnxprune.proof import valid
from onnxprune.report import data, text
from onnxprune.rewriting import Plan, Removal, io_changes
from tests.graphs.net import Net, feeds_of, group_of, prune, run, shapes_of, with_arrays


def mlp() -> onnx.ModelProto:
    net = Net()
    x = net.input(["batch", 6], "features")
    x = net.add("Relu", net.add("MatMul", x, net.weight(6, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 10, name="w2"), name="scores"), ["batch", 10])
    return net.proto()


def attention(heads: int = 4, size: int = 6) -> onnx.ModelProto:
    """One step of a decoder: past keys and values come in and grow."""
    net, width = Net(), heads * size
    x = net.input([2, 1, 5], "x")

    def part(name: str) -> str:
        made = net.add("MatMul", x, net.weight(5, width, name=f"w_{name}"))
        made = net.add("Reshape", made, net.ints(2, 1, heads, size))
        return str(net.add("Transpose", made, perm=[0, 2, 1, 3]))

    past = [net.input([2, heads, 3, size], f"past_{name}") for name in ("key", "value")]
    key = net.add("Concat", past[0], part("k"), axis=2, name="present_key")
    value = net.add("Concat", past[1], part("v"), axis=2, name="present_value")
    scores = net.add("MatMul", part("q"), net.add("Transpose", key, perm=[0, 1, 3, 2]))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), value)
    merged = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(2, 1, width))
    out = net.add("MatMul", merged, net.weight(width, 5, name="w_out"), name="y")
    net.output(out, [2, 1, 5])
    for name in (key, value):
        net.output(name, [2, heads, 4, size])
    return net.proto()


def sizes_of(outcome: api.Outcome) -> dict[tuple[str, str, int], tuple[int, int]]:
    return {(c.kind, c.name, c.axis): (c.before, c.after) for c in outcome.io_changes}


def dims(values: Any) -> dict[str, list[int]]:
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def check_against_zeroed(proto: onnx.ModelProto, outcome: api.Outcome) -> None:
    """Without the masked reference: zeros in all weights of the original at the positions that went."""
    masks = outcome.plan.masks(proto)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    zeroed = with_arrays(proto, {n: np.where(m, arrays[n], 0).astype(arrays[n].dtype) for n, m in masks.items()})
    removal = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    feeds = feeds_of(proto)
    names = [o.name for o in proto.graph.output]
    wanted = io_changes.outputs(removal, names, list(run(zeroed, feeds=feeds).values()))
    found = run(outcome.model, feeds=io_changes.feeds(removal, feeds))
    for name, value in zip(names, wanted, strict=True):
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_features_and_scores_shrink_only_if_allowed() -> None:
    assert {g.name for g in api.trace(mlp()).groups} == {"w1"}
    assert prune(mlp()).io_changes == ()
    outcome = prune(mlp(), allow_io_changes=True)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert "inputs and outputs as planned" in outcome.verdict.checks
    assert sizes_of(outcome) == {("input", "features", 1): (6, 3), ("output", "scores", 1): (10, 5)}
    assert shapes_of(outcome.model) == {"w1": (3, 4), "w2": (4, 5)}
    assert dims(outcome.model.proto.graph.input) == {"features": [0, 3]}
    assert dims(outcome.model.proto.graph.output) == {"scores": [0, 5]}
    check_against_zeroed(mlp(), outcome)


def test_keep_names_inputs_and_outputs() -> None:
    outcome = prune(mlp(), allow_io_changes=True, keep=["features"])
    assert sizes_of(outcome) == {("output", "scores", 1): (10, 5)}


@pytest.mark.parametrize(("options", "axis", "sizes"), [({}, 1, (4, 2)), ({"head_dims": True}, 3, (6, 3))])
def test_the_cache_of_a_decoder_follows_its_heads(options: dict[str, Any], axis: int, sizes: tuple[int, int]) -> None:
    outcome = prune(attention(), allow_io_changes=True, only=["past_key", "past_value"], **options)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    changed = {key for key in sizes_of(outcome) if key[2] == axis}
    kinds = {("input", "past_key"), ("input", "past_value"), ("output", "present_key"), ("output", "present_value")}
    assert {key[:2] for key in changed} == kinds
    assert all(sizes_of(outcome)[key] == sizes for key in changed)
    assert {key for key in sizes_of(outcome) if key[1].startswith(("past", "present"))} == changed
    check_against_zeroed(attention(), outcome)
    locked = api.trace(attention(), head_dims=bool(options))
    assert group_of(locked, "w_k", 1) is None


def test_an_axis_without_a_layer_is_no_group() -> None:
    """Positions of a fixed sequence meet a table of positions, which no layer contracts."""
    net = Net()
    x = net.add("Add", net.input([2, 7, 4], "x"), net.weight(7, 4, name="positions"))
    net.output(net.add("MatMul", x, net.weight(4, 3, name="w"), name="y"), [2, 7, 3])
    groups = api.trace(net.proto(), allow_io_changes=True)
    touched = {io for g in groups.groups for io in g.io}
    assert touched == {("x", 2), ("y", 2)}
    assert not any((m.tensor, m.axis) == ("positions", 0) for g in groups.groups for m in g.members)


def test_a_stored_output_stays() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input([2, 3]), net.weight(3, 4, name="w"), name="y"), [2, 4])
    net.output(net.weight(5, 6, name="table"), [5, 6])
    outcome = prune(net.proto(), allow_io_changes=True)
    assert "table" not in {c.name for c in outcome.io_changes}
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem


def test_dynamic_axes_and_the_batch_stay() -> None:
    net = Net()
    x = net.input([4, "time", 6], "x")
    net.output(net.add("MatMul", x, net.weight(6, 3, name="w"), name="y"), [4, "time", 3])
    outcome = prune(net.proto(), allow_io_changes=True)
    assert sizes_of(outcome) == {("input", "x", 2): (6, 3), ("output", "y", 2): (3, 2)}


def test_another_model_than_the_planned_one_is_refused() -> None:
    """The declared sizes are compared with those of the plan."""
    outcome = prune(mlp(), allow_io_changes=True)
    other = onnx.ModelProto()
    other.CopyFrom(outcome.model.proto)
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 10
    verdict = onnxprune.verify(mlp(), other, outcome.plan)
    assert not verdict.ok
    assert "graph outputs changed" in verdict.problem


def test_the_plan_knows() -> None:
    outcome = prune(mlp(), allow_io_changes=True)
    plan = Plan.from_json(outcome.plan.to_json())
    assert plan.options["allow_io_changes"] is True
    done = api.execute(api.load(mlp()), plan, verify=True)
    assert done.verdict is not None
    assert done.verdict.ok
    assert done.io_changes == outcome.io_changes
    assert done.model.proto == outcome.model.proto


def test_the_report_lists_every_change() -> None:
    outcome = prune(mlp(), allow_io_changes=True)
    lines = text.outcome(outcome)
    assert text.entry("changed", "input features: axis 1 6 -> 3") in lines
    assert text.entry("changed", "output scores: axis 1 10 -> 5") in lines
    assert data.outcome_json(outcome)["io_changes"][0] == {
        "kind": "input", "name": "features", "axis": 1, "before": 6, "after": 3,
    }  # fmt: skip


def test_repair_feeds_each_model_its_own_inputs() -> None:
    rng = np.random.default_rng(0)
    runs = {"features": rng.standard_normal((64, 6)).astype(np.float32)}
    outcome = api.run(api.load(mlp()), api.Options(allow_io_changes=True), data=[runs] * 4)
    assert outcome.recovery is not None
    assert outcome.recovery.fits
    assert valid(outcome.groups.model, outcome.model) == ""
