"""Labels through operators by letters: what is tied, read, fixed and new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.tracing import NodeView
from onnxprune.tracing import rule as register_rule
from onnxprune.tracing.rules.letters import Copies, through
from onnxprune.tracing.rules.registry import _RULES
from tests.graphs.net import Net


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("onnxprune.tracing.rules.registry._RULES", {k: list(v) for k, v in _RULES.items()})
    yield


def groups_of(rule: Any, outputs: list[int], *, inputs: int = 1) -> Any:
    """MatMul -> an operator of one's own with a rule -> MatMul; `inputs` layers of six units go into it."""
    register_rule("Mine", domain="own")(rule)
    net = Net()
    x = net.input([2, 4])
    made = [net.add("MatMul", x, net.weight(4, 6, name=f"w{i}"), name=f"h{i}") for i in range(inputs)]
    y = net.add("Mine", *made, domain="own", name="y")
    net.output(net.add("MatMul", y, net.weight(outputs[-1], 3, name="v"), name="z"), [2, 3])
    proto = net.proto()
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, outputs))
    return api.trace(proto)


def test_letters_that_both_sides_have_are_followed() -> None:
    def rule(view: NodeView) -> Any:
        """Kept."""
        return through(view, ["nc"], ["nc"])

    (group,) = groups_of(rule, [2, 6]).groups
    assert group.units == 6 and {m.tensor for m in group.members} == {"w0", "v"}


def test_inputs_with_one_letter_are_tied() -> None:
    def rule(view: NodeView) -> Any:
        """Added."""
        return through(view, ["nc", "nc"], ["nc"])

    (group,) = groups_of(rule, [2, 6], inputs=2).groups
    assert {m.tensor for m in group.members} == {"w0", "w1", "v"}


def test_a_letter_that_no_output_has_is_summed_over() -> None:
    def rule(view: NodeView) -> Any:
        """Summed."""
        return through(view, ["nc"], [["n", "new"]])

    groups = groups_of(rule, [2, 5])
    assert {g.name: {m.tensor for m in g.members} for g in groups.groups} == {"w0": {"w0"}}


def test_averages_make_a_group_approximate_and_fixes_lock_it() -> None:
    def averaged(view: NodeView) -> Any:
        """Averaged."""
        return through(view, ["nc"], ["nc"], averages="c")

    def fixed(view: NodeView) -> Any:
        """Fixed."""
        return through(view, ["nc"], ["nc"], fixes={"c": "it is counted"})

    (group,) = groups_of(averaged, [2, 6]).groups
    assert not group.exact
    locked = groups_of(fixed, [2, 6])
    assert not locked.groups and any("it is counted" in b.reason for b in locked.barriers)


def test_copies_of_a_letter_go_together() -> None:
    def rule(view: NodeView) -> Any:
        """Every channel twice."""
        return through(view, [["n", Copies("c", 2)]], [["n", "c"]])

    (group,) = groups_of(rule, [2, 3]).groups
    assert group.units == 3
    by_unit = np.ravel(groups_of(rule, [2, 3]).tracing.axes["w0"][1])
    assert by_unit.shape == (6,)


def test_another_number_of_axes_is_a_barrier() -> None:
    def rule(view: NodeView) -> Any:
        """Wrong."""
        return through(view, ["nchw"], ["nc"])

    locked = groups_of(rule, [2, 6])
    assert not locked.groups and any("has 2 axes, not 4" in b.reason for b in locked.barriers)
