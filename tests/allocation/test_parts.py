"""Parts and units before one allocator: the part goes that does least damage for what it saves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.allocation import Options, PricedPart, cheapest_part
from onnxprune.cost import AxisLengths, units_in_order
from onnxprune.cost.functions import macs, memory, params
from onnxprune.tracing import Groups
from tests.pipelines.test_drop import residual

BLOCK, WHOLE = 2 * 8 * 12, 6 * 8 + 3 * 2 * 8 * 12 + 8 * 5


@pytest.fixture(scope="module")
def groups() -> Groups:
    return api.trace(residual(3).proto())


def part_of(groups: Groups, number: int, damage: float, **given: Any) -> PricedPart:
    """The block of one residual branch."""
    weights = {f"layers.{number}.{side}.weight" for side in ("up", "down")}
    readers = [node for node in groups.tracing.model.proto.graph.node if weights.intersection(node.input)]
    inside = tuple(i for i, g in enumerate(groups.groups) if {m.tensor for m in g.members} <= weights)
    return PricedPart(frozenset({*weights, *(node.output[0] for node in readers)}), damage, inside, **given)


def scores_of(groups: Groups, each: float) -> Any:
    """Damage that accumulates by the same amount with every unit."""
    scores = np.zeros(groups.classes.count)
    for group in groups.groups:
        scores[group.classes] = each * np.arange(1, len(group.classes) + 1)
    return scores


def chosen(groups: Groups, damages: list[float], each: float, **options: Any) -> int | None:
    parts = [part_of(groups, number, damage) for number, damage in enumerate(damages)]
    asked = Options(criterion="obs", **({"params": "60%"} | options))
    return cheapest_part(groups, scores_of(groups, each), asked, parts)


@pytest.mark.parametrize("allocation", ["greedy", "sensitivity"])
@pytest.mark.parametrize("cheap", range(3))
def test_the_part_with_the_least_damage_goes(groups: Groups, cheap: int, allocation: str) -> None:
    damages = [0.5, 0.5, 0.5]
    damages[cheap] = 0.01
    assert chosen(groups, damages, each=0.1, allocation=allocation) == cheap


@pytest.mark.parametrize("allocation", ["greedy", "sensitivity"])
def test_units_go_where_they_are_cheaper(groups: Groups, allocation: str) -> None:
    assert chosen(groups, [9.0, 9.0, 9.0], each=0.001, allocation=allocation) is None


def test_what_is_gone_already_counts(groups: Groups) -> None:
    parts = [part_of(groups, 0, 0.0, gone=True), part_of(groups, 1, 0.01)]
    asked = Options(criterion="obs", params="80%")
    assert cheapest_part(groups, scores_of(groups, 0.1), asked, parts) is None, "one block is enough"
    assert cheapest_part(groups, scores_of(groups, 0.1), Options(criterion="obs", params="50%"), parts) == 1


def test_lost_units_of_a_part_are_not_paid_for_twice(groups: Groups) -> None:
    """Greedy takes cheap units of the block first; the block then costs what it does beyond these."""
    scores = scores_of(groups, 0.15)
    scores[groups.groups[0].classes] *= 100  # the stream
    part = part_of(groups, 1, 0.6)
    (inside,) = part.groups
    classes = groups.groups[inside].classes
    scores[classes] = 0.6 * np.arange(1, len(classes) + 1) / len(classes)
    assert cheapest_part(groups, scores, Options(criterion="obs", params=WHOLE - BLOCK), [part]) == 0


def test_costs_without_parts_are_those_of_the_model_without_them(groups: Groups) -> None:
    """Of all combinations of two parts, with and without units of others; `along` agrees with `total`."""
    parts = [part_of(groups, number, 0.0).names for number in (0, 2)]
    order = {g.name: units_in_order(g, np.zeros(groups.classes.count)) for g in groups.groups}
    widths = AxisLengths(groups, order, parts)
    assert widths.count == len(groups.groups) + 2 and widths.units(widths.count - 1) == 1
    for kind in (params, macs):
        measure, plain = kind(widths), kind(AxisLengths(groups, order))
        for gone in itertools.product((0, 1), repeat=2):
            counts = np.array([*([0] * len(groups.groups)), *gone])
            assert measure.total(counts) == plain.total(counts[:-2]) - sum(gone) * BLOCK
            for place in (-2, -1):
                whole = counts.copy()
                found = measure.along(counts, widths.count + place, np.arange(2))
                for count in (0, 1):
                    whole[place] = count
                    assert found[count] == measure.total(whole)
    counts = np.zeros(widths.count, np.int64)
    assert memory(widths).total(counts) == memory(AxisLengths(groups, order)).total(counts[:-2])
