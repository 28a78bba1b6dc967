"""Results as plain data."""

from __future__ import annotations

import math

from onnxprune.cost import Cost
from onnxprune.cost.counts import LayerCost
from onnxprune.report import data, text


def test_layers_are_paired_by_name_and_order():
    def layer(name: str, *shape: int) -> LayerCost:
        return LayerCost(name, "Conv", "w", shape, math.prod(shape), 0)

    before = [layer("a", 4, 3), layer("b", 8, 4), layer("b", 9, 4)]
    after = [layer("b", 8, 2), layer("b", 9, 4), layer("c", 5, 5)]
    pairs = data.pair(before, after)
    assert [(p.name, p.before, p.after, p.changed) for p in pairs] == [
        ("a", (4, 3), None, True),
        ("b", (8, 4), (8, 2), True),
        ("b", (9, 4), (9, 4), False),
        ("c", None, (5, 5), True),
    ]
    lines = text.difference_lines(Cost(80, 0, 320, ()), Cost(77, 0, 308, ()), pairs, every=False)
    assert lines[-1] == "1 layer unchanged" and any("4x3" in x and " - " in x for x in lines)
