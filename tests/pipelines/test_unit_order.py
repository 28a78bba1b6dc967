"""Units in another order before N:M: more is kept, nothing changes but the places, and plans carry it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.errors import GoalMissed
from onnxprune.model import load, to_proto
from onnxprune.pipelines import verify
from onnxprune.pipelines.apply import execute
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.pipelines.unit_order import Ordered, as_far_as_proven, best_orders, proven_order
from onnxprune.rewriting import Plan, ReorderStep
from onnxprune.sparsity import NofM, SparsifyOptions, contraction_weights
from onnxprune.tracing import trace

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
PAIRS = SparsifyOptions(pattern="2:4", method="magnitude")


def test_more_is_kept_in_another_order_and_the_model_computes_the_same() -> None:
    groups = trace(load(DIGITS))
    weights, _ = contraction_weights(groups)
    order = best_orders(groups, weights, NofM(2, 4), 0)
    assert order.steps
    assert order.after > order.before + 0.01
    found = to_proto(proven_order(groups, order.steps, sizes={}))
    old, new = ({t.name: numpy_helper.to_array(t) for t in p.graph.initializer} for p in (onnx.load(DIGITS), found))
    assert {n: v.shape for n, v in old.items()} == {n: v.shape for n, v in new.items()}
    assert any((old[name] != new[name]).any() for name in old)
    for name in old:
        np.testing.assert_array_equal(np.sort(old[name], axis=None), np.sort(new[name], axis=None))


def test_zeros_take_less_of_the_weights_in_the_order_that_was_found() -> None:
    proto = load(DIGITS)
    done = sparsified(proto, PAIRS)
    assert done.verdict is not None
    assert done.verdict.ok
    assert done.order is not None
    plain = sparsified(proto, SparsifyOptions(pattern="2:4", method="magnitude", permute=False))
    assert plain.order is None
    assert not plain.plan.reorders
    ordered, as_before = (sum(s.keep.size - s.keep.sum() for s in d.plan.zeros) for d in (done, plain))
    assert ordered == as_before


def test_a_plan_carries_the_order_on_and_is_verified() -> None:
    source = load(DIGITS)
    done = sparsified(source, PAIRS)
    plan = Plan.from_json(done.plan.to_json())
    assert plan.reorders == done.plan.reorders
    again = execute(source, plan)
    assert to_proto(again.model).SerializeToString() == to_proto(done.model).SerializeToString()
    assert verify.prove(source, done.model, plan).ok
    without = Plan.from_json(Plan((), options=plan.options, zeros=plan.zeros).to_json())
    assert not verify.prove(source, done.model, without).ok


def test_other_patterns_and_given_masks_leave_the_order_alone() -> None:
    assert not SparsifyOptions(sparsity=0.5).order_matters
    assert not SparsifyOptions(pattern="2:4", masks={}).order_matters
    assert not SparsifyOptions(pattern="2:4", permute=False).order_matters
    assert SparsifyOptions(pattern="2:4").order_matters


def test_a_group_whose_order_cannot_be_proven_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.pipelines import unit_order

    groups = trace(load(DIGITS))
    weights, _ = contraction_weights(groups)
    order = best_orders(groups, weights, NofM(2, 4), 0)
    wrong = order.steps[0].group
    real = unit_order.with_order

    def broken(groups, steps):
        found = real(groups, steps)
        if all(step.group != wrong for step in steps):
            return found
        proto = to_proto(found)
        tensor = proto.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
        return load(proto)

    monkeypatch.setattr(unit_order, "with_order", broken)
    found, left = as_far_as_proven(groups, order, sizes={}, samples=[])
    assert [s.group for s in left.steps] == [s.group for s in order.steps if s.group != wrong]
    assert to_proto(found).SerializeToString() == to_proto(real(groups, left.steps)).SerializeToString()
    with pytest.raises(GoalMissed, match="not proven"):
        proven_order(groups, order.steps, sizes={})
    assert proven_order(groups, order.steps, verify=False) is not groups.model
    none, empty = as_far_as_proven(
        groups, Ordered((ReorderStep(wrong, order.steps[0].order),), 0.5, 0.6), sizes={}, samples=[]
    )
    assert none is groups.model
    assert empty == Ordered((), 0.5, 0.5)
