"""Lengths of axes as functions of how many units go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune import api, criteria
from onnxprune.allocation import Options, select
from onnxprune.cost.axis_lengths import ONE, AxisLengths, units_in_order
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups
from tests.graphs.net import Net


def chain() -> Groups:
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w1")), name="h")
    h = net.add("Relu", net.add("MatMul", h, net.weight(6, 5, name="w2")), name="g")
    net.output(net.add("MatMul", h, net.weight(5, 3, name="w3"), name="y"))
    return api.trace(net.proto())


def lengths_of(groups: Groups) -> AxisLengths:
    order = {g.name: units_in_order(g, np.arange(groups.classes.count, dtype=float)) for g in groups.groups}
    return AxisLengths(groups, order)


def test_axes_shrink_as_their_groups_lose() -> None:
    groups = chain()
    lengths = lengths_of(groups)
    numbers = {name: lengths.axes(name) for name in ("x", "w1", "w2", "w3", "y")}
    for counts in ([0, 0], [2, 0], [0, 3], [5, 4]):
        left = lengths.lengths(np.array(counts))
        shapes = {name: tuple(int(left[a]) for a in axes) for name, axes in numbers.items()}
        a, b = 6 - counts[0], 5 - counts[1]
        assert shapes == {"x": (2, 4), "w1": (4, a), "w2": (a, b), "w3": (b, 3), "y": (2, 3)}


def test_lengths_are_those_of_the_model_that_is_written() -> None:
    groups = chain()
    chosen = select(groups, criteria.score(groups, "l2"), Options(ratio=0.5))
    removal = Removal(groups, removed_classes(groups, chosen.removed))
    small = rewrite(groups, removal.removed_classes)
    lengths = lengths_of(groups)
    numbers = {name: lengths.axes(name) for name in ("w1", "w2", "w3")}
    left = lengths.lengths(np.array([len(chosen.removed.get(g.name, ())) for g in groups.groups]))
    for tensor in small.proto.graph.initializer:
        assert [int(left[a]) for a in numbers[tensor.name]] == list(tensor.dims)


def test_axes_that_keep_their_length_are_one_number() -> None:
    lengths = lengths_of(chain())
    assert lengths.fixed(1) == ONE and lengths.fixed(7) == lengths.fixed(7) != lengths.fixed(8)
    assert lengths.lengths(np.array([0, 0]))[lengths.fixed(8)] == 8, "a new axis is seen"


def test_what_goes_along_with_a_group() -> None:
    lengths = lengths_of(chain())
    axes, removed = lengths.along(0)
    assert len(axes) == 0 and removed.shape == (7, 0), "no axis was asked for"
    (number,) = {lengths.axes("w1")[1]}
    axes, removed = lengths.along(0)
    assert axes.tolist() == [number] and removed[:, 0].tolist() == list(range(7))
    assert lengths.units(0) == 6 and lengths.count == 2


def test_a_group_without_an_order_stays_whole() -> None:
    groups = chain()
    lengths = AxisLengths(groups, {})
    number = lengths.axes("w1")[1]
    assert lengths.units(0) == 0 and lengths.lengths(np.array([0, 0]))[number] == 6


@pytest.mark.parametrize("cells", [[[0, 1, 2, 3, 4, 5]], [[0, 1, 2], [3, 4, 5]]])
def test_units_take_the_least_of_every_cell(cells: list[list[int]]) -> None:
    scores = np.array([3.0, 1.0, 2.0, 10.0, 30.0, 20.0])
    made = replace(chain().groups[0], cells=tuple(np.array(c) for c in cells))
    order = units_in_order(made, scores)
    assert order.tolist() == ([[1], [2], [0], [3], [5], [4]] if len(cells) == 1 else [[1, 3], [2, 5], [0, 4]])
