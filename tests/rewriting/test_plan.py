"""The plan as text that people edit, and that is applied to other exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.rewriting import Plan
from onnxprune.rewriting.plan import Step
from tests.graphs.net import FLOAT16, Net, array_of, run, shapes_of, with_arrays


def network(batch: int | str = 2, seed: int = 0, width: int = 8, dtype: Any = np.float32) -> onnx.ModelProto:
    """A stem, a grouped convolution that is balanced over two rows, a block with a shared constant, a classifier."""
    net = Net(seed=seed, dtype=dtype)
    x = net.input([batch, 3, 4, 4])
    x = net.add("Conv", x, net.weight(width, 3, 3, 3, name="stem"), net.weight(width, name="bias"), pads=[1, 1, 1, 1])
    ones = net.const(np.ones((width, 1, 1), dtype), "ones")
    x = net.add("Mul", net.add("Relu", x), ones)
    x = net.add("Conv", x, net.weight(6, width // 2, 1, 1, name="grouped"), group=2)
    x = net.add("Relu", x)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.output(net.add("Gemm", x, net.weight(6, 4, name="head")), [batch, 4])
    return net.proto()


@pytest.fixture
def proto() -> onnx.ModelProto:
    return network()


@pytest.fixture
def plan(proto: onnx.ModelProto) -> Plan:
    return onnxprune.make_plan(proto, 0.5)


def edited(plan: Plan, edit: Callable[[dict[str, Any]], Any]) -> Plan:
    raw = json.loads(plan.to_json())
    edit(raw)
    return Plan.from_json(json.dumps(raw))


# --- text --------------------------------------------------------------------------------------------------


def test_text_and_back(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    assert [(s.group, s.remove, s.units, s.size, s.exact) for s in again.steps] == [
        (s.group, s.remove, s.units, s.size, s.exact) for s in plan.steps
    ]
    assert Plan.from_json(plan.to_json().encode()).steps == again.steps


def test_text_says_what_the_plan_is(plan: Plan, proto: onnx.ModelProto) -> None:
    raw = json.loads(plan.to_json())
    assert (raw["format"], raw["version"]) == ("onnxprune-plan", 1)
    assert raw["source"]["digest"].startswith("sha256:")
    assert raw["options"]["ratio"] == 0.5
    group = raw["groups"][0]
    assert group["name"] == "stem"
    assert group["units"] == 4
    assert len(group["scores"]) == group["size"] == 8
    members = {(m["tensor"], m["axis"]): m for m in group["members"]}
    assert set(members) >= {("stem", 0), ("bias", 0), ("ones", 0), ("grouped", 1)}
    small = shapes_of(onnxprune.apply(proto, plan))
    assert len(members["stem", 0]["removed"]) == 8 - small["stem"][0]
    reasons = {b["reason"] for b in raw["barriers"]}
    assert "graph input 'x'" in reasons


def test_positions_of_a_balanced_axis_are_listed_row_by_row(plan: Plan) -> None:
    raw = json.loads(plan.to_json())
    (member,) = (m for m in raw["groups"][0]["members"] if m["tensor"] == "grouped")
    assert len({len(row) for row in member["removed"]}) == 1
    assert {len(row) for row in member["removed"]} == {2}


def test_steps_that_were_replaced_in_memory(plan: Plan, proto: onnx.ModelProto) -> None:
    """A plan that was just made is written like one that was read."""
    for steps in (plan.steps[:1], plan.steps[::-1], (*plan.steps, Step("gone", (), 3, 3))):
        again = Plan.from_json(replace(plan, steps=steps).to_json())
        assert [s.group for s in again.steps] == [s.group for s in steps]
        assert onnxprune.apply(proto, again) == onnxprune.apply(proto, replace(plan, steps=steps))


def test_lists_of_numbers_are_on_one_line(plan: Plan) -> None:
    lines = [line for line in plan.to_json().splitlines() if '"remove"' in line]
    assert lines
    assert all("]" in line for line in lines)


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda raw: raw.update(format="other"), "$.format"),
    "version": (lambda raw: raw.update(version=99), "$.version"),
    "groups": (lambda raw: raw.update(groups={}), "$.groups"),
    "group": (lambda raw: raw["groups"].__setitem__(1, 5), "$.groups[1]"),
    "name": (lambda raw: raw["groups"][0].pop("name"), "$.groups[0].name"),
    "size": (lambda raw: raw["groups"][0].update(size=0), "$.groups[0].size"),
    "units": (lambda raw: raw["groups"][0].update(units="8"), "$.groups[0].units"),
    "remove": (lambda raw: raw["groups"][0].update(remove=[1, "2"]), "$.groups[0].remove"),
    "remove-bool": (lambda raw: raw["groups"][0].update(remove=[True]), "$.groups[0].remove"),
    "remove-float": (lambda raw: raw["groups"][0].update(remove=[1.5]), "$.groups[0].remove"),
    "remove-text": (lambda raw: raw["groups"][0].update(remove="1"), "$.groups[0].remove"),
    "scores": (lambda raw: raw["groups"][0].update(scores=["a"]), "$.groups[0].scores"),
    "layout": (lambda raw: raw["groups"][0].update(layout="x"), "$.groups[0].layout"),
    "members": (lambda raw: raw["groups"][0].update(members=[1]), "$.groups[0].members"),
    "source": (lambda raw: raw.update(source=[]), "$.source"),
    "options": (lambda raw: raw.update(options=3), "$.options"),
    "sizes": (lambda raw: raw["options"].update(sizes={"batch": 0}), "$.options.sizes"),
    "barriers": (lambda raw: raw.update(barriers={}), "$.barriers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_offence_is_named_by_its_place(plan: Plan, name: str) -> None:
    edit, place = BROKEN[name]
    with pytest.raises(UsageError) as caught:
        edited(plan, edit)
    assert caught.value.message.startswith("bad plan: ")
    assert caught.value.message.endswith(f"@ {place}")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"plan"', "[" * 100_000, b"\xff\xfe", "{}"])
def test_text_that_is_no_plan(text: Any) -> None:
    with pytest.raises(UsageError, match="plan"):
        Plan.from_json(text)


# --- fit ---------------------------------------------------------------------------------------------------

UNFIT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "name": (lambda raw: raw["groups"][0].update(name="gone"), "no group 'gone'"),
    "size": (lambda raw: raw["groups"][0].update(size=10), "group 'stem' has 8 parts in the model, 10 in the plan"),
    "tensor": (lambda raw: raw["groups"][0]["members"][0].update(tensor="other"), "has tensor 'stem' in the model"),
    "axis": (lambda raw: raw["groups"][0]["members"][0].update(axis=1), "has axis 0 in the model, 1 in the plan"),
    "width": (lambda raw: raw["groups"][0]["members"][0].update(size=9), "has size 8 in the model, 9 in the plan"),
    "layout": (lambda raw: raw["groups"][0].update(layout=12345), "lies on other positions"),
    "beyond": (lambda raw: raw["groups"][0].update(remove=[0, 8]), "has parts 0 to 7; the plan removes 0 to 8"),
    "negative": (lambda raw: raw["groups"][0].update(remove=[-1]), "has parts 0 to 7"),
    "huge": (lambda raw: raw["groups"][0].update(remove=[10**30]), "has parts 0 to 7"),
    "all": (lambda raw: raw["groups"][0].update(remove=list(range(8))), "would lose all of its 8 parts"),
    "lopsided": (lambda raw: raw["groups"][0].update(remove=[0]), "must lose the same share of each of its 2 rows"),
    "twice": (
        lambda raw: raw["groups"].extend({**raw["groups"][0], "remove": part} for part in ([0, 1, 4, 5], [2, 3, 6, 7])),
        "stem",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_plan_that_does_not_fit_says_where(plan: Plan, proto: onnx.ModelProto, name: str) -> None:
    edit, what = UNFIT[name]
    with pytest.raises(UsageError) as caught:
        onnxprune.apply(proto, edited(plan, edit))
    assert what in caught.value.message


def test_a_plan_for_another_architecture(plan: Plan) -> None:
    with pytest.raises(
        UsageError, match=r"does not fit: group 'stem' has (12 parts|size 12) in the model, 8 in the plan"
    ):
        onnxprune.apply(network(width=12), plan)


def test_a_group_of_which_nothing_goes_may_be_unknown(plan: Plan, proto: onnx.ModelProto) -> None:
    extra = Plan((*Plan.from_json(plan.to_json()).steps, Step("gone", (), 3, 3)), options=plan.options)
    assert shapes_of(onnxprune.apply(proto, extra)) == shapes_of(onnxprune.apply(proto, plan))


# --- apply -------------------------------------------------------------------------------------------------


def test_apply_is_what_prune_does(plan: Plan, proto: onnx.ModelProto) -> None:
    pruned = onnxprune.prune(proto, 0.5).model
    assert onnxprune.apply(proto, Plan.from_json(plan.to_json())) == pruned


def test_an_edit_by_hand(plan: Plan, proto: onnx.ModelProto) -> None:
    changed = edited(plan, lambda raw: raw["groups"][0].update(remove=[0, 7]))
    small = onnxprune.apply(proto, changed)
    np.testing.assert_array_equal(array_of(small, "stem"), array_of(proto, "stem")[1:7])
    verdict = onnxprune.verify(proto, small, changed)
    assert verdict.ok, verdict.problem


def test_removing_nothing_changes_nothing(plan: Plan, proto: onnx.ModelProto) -> None:
    empty = edited(plan, lambda raw: [g.update(remove=[]) for g in raw["groups"]])
    assert onnxprune.apply(proto, empty) == proto


def test_what_the_plan_needs_to_hold_by_hand(proto: onnx.ModelProto) -> None:
    """Only the names and indices: the rest is for people and for safety."""
    text = {
        "format": "onnxprune-plan",
        "version": 1,
        "groups": [{"name": "stem", "size": 8, "units": 4, "remove": [1, 5]}],
    }
    assert shapes_of(onnxprune.apply(proto, Plan.from_json(json.dumps(text))))["stem"] == (6, 3, 3, 3)


def test_another_batch_size(plan: Plan) -> None:
    for batch in (5, "batch"):
        other = network(batch)
        small = onnxprune.apply(other, plan)
        assert shapes_of(small) == shapes_of(onnxprune.apply(network(), plan))
        verdict = onnxprune.verify(other, small, plan)
        assert verdict.ok, verdict.problem


def half(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.data_type == 1:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = FLOAT16
    return copy


def test_a_half_precision_copy(plan: Plan, proto: onnx.ModelProto) -> None:
    other = half(proto)
    small = onnxprune.apply(other, plan)
    assert small.graph.initializer[0].data_type == FLOAT16
    assert shapes_of(small) == shapes_of(onnxprune.apply(proto, plan))
    verdict = onnxprune.verify(other, small, plan)
    assert verdict.ok, verdict.problem


def test_other_weights_of_the_same_architecture(plan: Plan) -> None:
    other = network(seed=9)
    small = onnxprune.apply(other, plan)
    assert onnxprune.verify(other, small, plan).ok


def test_apply_to_a_path_writes_nothing(plan: Plan, proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert onnxprune.apply(path, plan) == onnxprune.apply(proto, plan)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_plan_remembers_how_heads_were_cut() -> None:
    from tests.tracing.test_groups import attention

    proto = attention().proto()
    for given in ({"head_dims": True}, {"head_dims": False}):
        plan = Plan.from_json(onnxprune.make_plan(proto, 0.5, **given).to_json())
        assert onnxprune.verify(proto, onnxprune.apply(proto, plan), plan).ok


# --- masks and zeros ---------------------------------------------------------------------------------------


def test_masks_are_of_initializers_in_their_shape(plan: Plan, proto: onnx.ModelProto) -> None:
    masks, small = plan.masks(proto), onnxprune.apply(proto, plan)
    before, after = shapes_of(proto), shapes_of(small)
    assert set(masks) == {n for n in before if before[n] != after[n]} == {"stem", "bias", "ones", "grouped", "head"}
    for name, mask in masks.items():
        assert (mask.dtype, mask.shape) == (np.dtype(bool), before[name])
        np.testing.assert_array_equal(array_of(proto, name)[mask].reshape(after[name]), array_of(small, name))


def test_masks_name_initializers_only() -> None:
    """What a node fills is no weight that a trainer could mask."""
    from onnx import helper

    net = Net()
    x = net.make((2, 5, 8), 2)
    fill = helper.make_tensor("fill", 1, [1], [1.5])
    net.read(net.add("Mul", x, net.add("ConstantOfShape", net.ints(5, 8), value=fill)), 2)
    proto = net.proto()
    assert set(onnxprune.make_plan(proto, 0.5).masks(proto)) == {"w_in", "w_out"}


def test_masks_of_a_shared_constant_have_an_entry_per_use() -> None:
    from tests.tracing.test_groups import two_scales

    proto = two_scales(np.ones(8)).proto()
    masks = onnxprune.make_plan(proto, 0.5, ratios={"w_a": 0.25, "w_b": 0.75}).masks(proto)
    shared = {name: int(mask.sum()) for name, mask in masks.items() if name.startswith("scale")}
    assert sorted(shared.values()) == [2, 6]
    assert all(name.startswith("scale@") for name in shared)


def test_zero_keeps_the_sizes_and_computes_the_same(plan: Plan, proto: onnx.ModelProto) -> None:
    zero, small = onnxprune.apply(proto, plan, zero=True), onnxprune.apply(proto, plan)
    assert shapes_of(zero) == shapes_of(proto)
    for name, mask in plan.masks(proto).items():
        value = array_of(zero, name)
        np.testing.assert_array_equal(value, np.where(mask, array_of(proto, name), 0))
    (a,), (b,) = run(zero).values(), run(small).values()
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(a).max())
    assert with_arrays(zero, {n: array_of(proto, n) for n in plan.masks(proto)}) == proto


def test_zero_of_weights_in_constant_nodes() -> None:
    from onnx import helper

    net = Net()
    x = net.make((2, 5, 8), 2)
    value = helper.make_tensor("kept_name", 1, [8], np.arange(1, 9, dtype=np.float32))
    factor = net.add("Constant", value=value)
    net.read(net.add("Mul", x, factor), 2)
    proto = net.proto()
    zero = onnxprune.apply(proto, onnxprune.make_plan(proto, 0.5), zero=True)
    node = next(n for n in zero.graph.node if n.op_type == "Constant")
    assert int((numpy_helper.to_array(node.attribute[0].t) == 0).sum()) == 4
    assert run(zero)
