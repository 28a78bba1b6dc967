"""Orders of units: which groups may have one, what moves, and steps that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.rewriting import Plan, ReorderStep, why_fixed, with_order
from onnxprune.tracing import Group, Groups, trace
from tests.graphs.net import Net, run

HIDDEN = 6
ORDER = (3, 1, 5, 0, 2, 4)


def perceptron(*between: str, **attrs: Any) -> onnx.ModelProto:
    """Two convolutions, with operators between them."""
    net = Net()
    x = net.add("Conv", net.input(["n", 4, 5, 5]), net.weight(HIDDEN, 4, 1, 1, name="first"), net.weight(HIDDEN))
    for op in between:
        x = net.add(op, x, **attrs)
    net.output(net.add("Conv", x, net.weight(3, HIDDEN, 1, 1, name="second")))
    return net.proto()


def traced(proto: onnx.ModelProto) -> tuple[Groups, Group]:
    groups = trace(load(proto))
    return groups, next(g for g in groups.groups if g.name == "first")


def values(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_every_weight_moves_with_the_units_and_no_output_changes() -> None:
    proto = perceptron("Relu")
    groups, group = traced(proto)
    assert why_fixed(groups, group) == ""
    found = to_proto(with_order(groups, [ReorderStep("first", ORDER)]))
    before, after = values(proto), values(found)
    assert {(m.tensor, m.axis) for m in group.members} >= {("first", 0), ("second", 1)}
    for member in group.members:
        np.testing.assert_array_equal(after[member.tensor], np.take(before[member.tensor], ORDER, member.axis))
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, 5, 5)).astype(np.float32)}
    (one,), (other,) = (run(p, feeds=feeds).values() for p in (proto, found))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_units_that_look_at_their_neighbours_stay_in_order() -> None:
    groups, group = traced(perceptron("LRN", size=3))
    assert "looks at neighbours" in why_fixed(groups, group)
    with pytest.raises(UsageError, match="cannot change places"):
        with_order(groups, [ReorderStep("first", ORDER)])


def test_units_with_several_positions_stay_in_order() -> None:
    net = Net()
    x = net.add("Conv", net.input([1, 4, 5, 5]), net.weight(HIDDEN, 4, 1, 1, name="first"))
    net.output(net.add("MatMul", net.add("Flatten", x), net.weight(HIDDEN * 25, 3)))
    groups, group = traced(net.proto())
    assert "several positions" in why_fixed(groups, group)


def test_the_channels_of_grouped_convolutions_stay_in_order() -> None:
    net = Net()
    x = net.add("Conv", net.input([1, 4, 5, 5]), net.weight(8, 4, 1, 1, name="first"))
    x = net.add("Conv", x, net.weight(8, 4, 1, 1), group=2)
    net.output(net.add("Conv", x, net.weight(3, 8, 1, 1)))
    groups, group = traced(net.proto())
    assert "several rows" in why_fixed(groups, group)


def test_a_plan_with_orders_is_text_and_back() -> None:
    plan = Plan((), reorders=(ReorderStep("first", ORDER),))
    assert Plan.from_json(plan.to_json()).reorders == plan.reorders


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"kind": "reorder", "group": 1, "order": [0]}, "must be a text"),
        ({"kind": "reorder", "group": "first", "order": [0, 0]}, "every number from 0 up once"),
        ({"kind": "reorder", "group": "first", "order": [True, False]}, "every number from 0 up once"),
        ({"kind": "reorder", "group": "first"}, "every number from 0 up once"),
    ],
)
def test_a_step_that_is_none_is_refused(step: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ReorderStep.from_json(step, "$.steps[0]")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (ReorderStep("other", ORDER), "no group 'other'"),
        (ReorderStep("first", (1, 0)), "6 units in the model, 2 in the plan"),
    ],
)
def test_a_plan_of_another_model_is_refused(step: ReorderStep, said: str) -> None:
    groups, _ = traced(perceptron())
    with pytest.raises(UsageError, match=said):
        with_order(groups, [step])
