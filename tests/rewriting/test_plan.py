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
from tests.graphs.net import FLOAT16, array_of, shapes_of
from tests.rewriting.planned import edited, network


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
