"""Groups of widths that are stated once: they lose equal shares, each units of its own, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.allocation import Options
from onnxprune.model import Couplings, HeldWidths, Model
from onnxprune.pipelines.prune import run
from onnxprune.tracing import trace
from tests.graphs.net import Net


def chain(*widths: int) -> Model:
    """Linear layers one behind the other, with these widths between them."""
    net = Net()
    x = net.input((2, 3))
    for index, (rows, columns) in enumerate(zip((3, *widths), (*widths, 5), strict=True)):
        x = net.add("Relu", net.add("MatMul", x, net.weight(rows, columns, name=f"w{index}")))
    net.output(x)
    return net.model()


def held(model: Model, *widths: HeldWidths) -> Model:
    return replace(model, couplings=Couplings(widths=widths))


def test_equal_widths_stay_equal() -> None:
    """By a budget, which takes more of one than of another otherwise."""
    model = chain(12, 40, 12, 40, 12)
    groups = trace(held(model, HeldWidths((("channel", 12),)), HeldWidths((("channel", 40),))))
    assert sorted(len(group.cells) for group in groups.groups) == [2, 3]
    assert sorted(group.units for group in groups.groups) == [12, 40]
    outcome = run(groups.model, Options(params="50%"))
    assert outcome.verdict is not None and outcome.verdict.ok
    left = [tensor.dims[1] for tensor in outcome.model.proto.graph.initializer][:-1]
    assert left[0] == left[2] == left[4] and left[1] == left[3] and left != [12, 40, 12, 40, 12]
    masks = outcome.plan.masks(groups.model)
    assert not np.array_equal(masks["w1"].any(axis=0), masks["w3"].any(axis=0)), "each loses units of its own"


def test_proportions_are_kept() -> None:
    model = held(chain(12, 40, 20), HeldWidths((("channel", 12), ("channel", 40))))
    (together, alone) = trace(model).groups
    assert (together.units, len(together.cells), alone.units) == (4, 2, 20)
    outcome = run(model, Options(ratio=0.25))
    assert [tensor.dims[1] for tensor in outcome.model.proto.graph.initializer][:-1] == [9, 30, 15]


def test_what_is_locked_stays_and_says_why() -> None:
    groups = trace(held(chain(12, 40), HeldWidths((("channel", 12),), "it is stated")))
    assert [group.units for group in groups.groups] == [40]
    assert "it is stated" in {barrier.reason for barrier in groups.barriers}


def test_widths_that_no_group_has_change_nothing() -> None:
    model = held(chain(12, 40), HeldWidths((("channel", 13),)), HeldWidths((("head", 12),), "no head"))
    groups = trace(model)
    assert [group.units for group in groups.groups] == [12, 40] and not groups.held
