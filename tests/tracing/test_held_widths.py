"""Groups of widths that are stated once: they lose equal shares, each units of its own, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.allocation import Options
from onnxprune.model import Couplings, HeldWidths, Model, load
from onnxprune.pipelines.prune import run
from onnxprune.tracing import trace
from tests.graphs.folders import KINDS, Family, decoder
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
    """Of heads and the stream."""
    model = load(decoder(Family(key_heads=8, stream=32)).net.proto())
    caches = tuple(f"{name}.{layer}.{kind}" for name in ("past*", "present") for layer in (0, 1) for kind in KINDS)
    both = held(model, HeldWidths((("head", 8), ("channel", 32))))
    (together, *_) = trace(both, allow_io_changes=caches).groups
    assert (together.units, len(together.cells)) == (8, 3)
    outcome = run(both, Options(ratio=0.25, allow_io_changes=caches))
    widths = {name: tuple(tensor.dims) for name, tensor in outcome.model.initializers.items()}
    assert widths["layers.0.q"] == widths["layers.1.q"] == (24, 12)


def test_what_is_locked_stays_and_says_why() -> None:
    groups = trace(held(chain(12, 40), HeldWidths((("channel", 12),), "it is stated")))
    assert [group.units for group in groups.groups] == [40]
    assert "it is stated" in {barrier.reason for barrier in groups.barriers}


def test_widths_that_no_group_has_change_nothing() -> None:
    model = held(chain(12, 40), HeldWidths((("channel", 13),)), HeldWidths((("head", 12),), "no head"))
    groups = trace(model)
    assert [group.units for group in groups.groups] == [12, 40] and not groups.held


def test_where_one_place_stays_all_do() -> None:
    """An output of the width that may not shrink; one of another width does not matter."""
    model = chain(12, 40, 5)
    for width, left in ((12, [12, 40]), (5, [12, 40])):
        place = (("channel", width), model.proto.graph.output[0].name, 1)
        groups = trace(held(model, HeldWidths((("channel", width),), places=(place,))))
        whole = [group.units for group in trace(model).groups]
        assert [group.units for group in groups.groups] == [units for units in whole if units != width]
        assert any("stays" in barrier.reason for barrier in groups.barriers), left


def test_what_goes_in_proportion_stays_with_the_others() -> None:
    """No head goes, since there is none: then neither does the stream."""
    groups = trace(held(chain(12, 40), HeldWidths((("channel", 12), ("head", 4)))))
    assert [group.units for group in groups.groups] == [40]
    assert "stated in proportion to others, which stay" in {barrier.reason for barrier in groups.barriers}
