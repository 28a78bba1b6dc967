"""Layers of two models are matched, by name and by structure."""

from __future__ import annotations

import math

from onnxprune.cost import Cost
from onnxprune.cost.counts import LayerCost
from onnxprune.report.difference import difference_json, difference_lines, pair


def layer(name: str, *shape: int, op: str = "Conv", weight: str = "w") -> LayerCost:
    return LayerCost(name, op, weight, shape, math.prod(shape), 0)


def test_layers_are_paired_by_name_and_order():
    before = [layer("a", 4, 3), layer("b", 8, 4), layer("b", 9, 4)]
    after = [layer("b", 8, 2), layer("b", 9, 4), layer("c", 5, 5)]
    pairs = pair(before, after)
    assert [(p.name, p.before, p.after, p.changed) for p in pairs] == [
        ("a", (4, 3), None, True),
        ("b", (8, 4), (8, 2), True),
        ("b", (9, 4), (9, 4), False),
        ("c", None, (5, 5), True),
    ]
    lines = difference_lines(Cost(80, 0, 320, ()), Cost(77, 0, 308, ()), pairs, every=False)
    assert lines[-1] == "1 layer unchanged" and any("4x3" in x and " - " in x for x in lines)


def test_a_layer_with_another_name_is_found_by_its_weight():
    before = [layer("a", 4, 3, weight="x"), layer("b", 5, 4, weight="y")]
    after = [layer("q", 5, 2, weight="y"), layer("r", 2, 3, weight="x")]
    assert [(p.name, p.new.name, p.matched) for p in pair(before, after)] == [
        ("a", "r", "weight"),
        ("b", "q", "weight"),
    ]


def test_layers_with_nothing_but_their_structure_in_common_are_matched_in_order():
    """As where another tool names all nodes anew, and left one of them out."""
    before = [layer("a", 8, 3, 3, 3), layer("b", 8, 8, 1, 1), layer("c", 9, 8, 3, 3), layer("d", 10, 9, op="Gemm")]
    after = [
        layer("1", 4, 3, 3, 3, weight="k"), layer("2", 5, 4, 3, 3, weight="l"), layer("3", 10, 5, op="Gemm", weight="m")
    ]  # fmt: skip
    pairs = pair(before, after)
    assert [(p.name, p.new.name if p.new else None) for p in pairs] == [
        ("a", "1"), ("b", None), ("c", "2"), ("d", "3")
    ]  # fmt: skip
    assert {p.matched for p in pairs if p.new} == {"structure"}
    lines = difference_lines(Cost(0, 0, 0, ()), Cost(0, 0, 0, ()), pairs, every=False)
    assert any(line.startswith("a -> 1 ") for line in lines) and "8x3x3x3" in "".join(lines)


def test_structure_does_not_reach_across_what_has_a_name():
    before = [layer("a", 4, 3, weight="x"), layer("b", 8, 4)]
    after = [layer("b", 8, 4), layer("z", 4, 3, weight="y")]
    assert [(p.name, p.new and p.new.name) for p in pair(before, after)] == [("a", None), ("b", "b"), ("z", "z")]


def test_plain_data_has_both_names_and_all_numbers():
    old, new = layer("a", 8, 3, weight="x"), layer("b", 4, 3, weight="y")
    (found,) = difference_json(Cost(24, 0, 96, (old,)), Cost(12, 0, 48, (new,)), pair([old], [new]))["layers"]
    assert (found["name"], found["new_name"], found["matched"]) == ("a", "b", "structure")
    assert found["params"] == [24, 12] and found["before"] == [8, 3] and found["width"] == [0, 0]
