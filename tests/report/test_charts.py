"""What is drawn of a document."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.report.charts import BarPlot, HeatPlot, LinePlot, charts_of, locks_of, round_numbers
from tests.report.documents import BENCHED, inspected, measured, pruned, searched


def test_layers_have_bars_of_their_widths_params_and_macs():
    document, difference = pruned()
    widths, params, macs = charts_of({**difference, **document})
    assert [chart.measure for chart in (widths, params, macs)] == ["width", "params", "macs"]
    assert [(bar.name, bar.before, bar.after) for bar in widths.bars[:2]] == [
        ("/conv/Conv", 32, 16), ("/conv_1/Conv", 64, 32)
    ]  # fmt: skip
    assert sum(bar.before for bar in macs.bars) == document["before"]["macs"]
    last = widths.bars[-1]
    assert (last.before, last.after) == (10, 10) and "graph output 'logits'" in last.locked
    assert "weight 32x1x3x3 -> 16x1x3x3" in widths.bars[0].told
    fit = next(f for f in document["repair"]["fits"] if f["node"] == "/conv_1/Conv")
    assert any(f"{fit['before']:.4g}" in line and f"{fit['after']:.4g}" in line for line in widths.bars[1].told)


def test_locks_are_told_by_weight():
    assert locks_of(pruned()[0])["fc_1.weight"] == "axis 0: graph output 'logits'"


def test_curves_are_drawn_with_the_cut_where_it_lies_on_them():
    lines, heat = charts_of(measured())
    assert isinstance(lines, LinePlot) and isinstance(heat, HeatPlot) and lines.is_log
    curve = next(c for c in measured()["curves"] if c["group"] == "conv.weight")
    assert [(s.x, s.y) for s in lines.lines["conv.weight"]] == [
        (100 * p["ratio"], p["values"]["error"]) for p in curve["points"]
    ]
    middle = next(p for p in curve["points"] if p["ratio"] == 0.5)
    (spot,) = [s for s in lines.spots if s.told[0] == "conv.weight"]
    assert (spot.x, spot.y, spot.kind) == (50, pytest.approx(middle["values"]["error"]), "chosen")
    assert heat.marks == {0: (1.0, "50%"), 1: (1.0, "50%")} and heat.cells[0][1] == middle["values"]["error"]
    assert heat.levels[0][1] == pytest.approx(math.log10(heat.cells[0][1]))
    assert min(map(min, heat.shares)) == 0 and max(map(max, heat.shares)) == 1


def test_the_trials_of_a_search_are_points_with_their_front_and_bound():
    plot = charts_of(searched())[0]
    trials = searched()["search"]["trials"]
    assert [s.number for s in plot.spots if s.number] == list(range(1, len(trials) + 1))
    assert [s.kind == "good" for s in plot.spots if s.number] == [t["good"] for t in trials]
    assert [s.x for s in plot.lines["Pareto front"]] == sorted(100 * t["reached"] for t in trials if t["pareto"])
    assert plot.bound == (6.0, "asked for")
    (chosen,) = [s for s in plot.spots if s.kind == "chosen"]
    assert chosen.x == min(100 * t["reached"] for t in trials if t["good"])


def test_a_course_of_training_is_drawn():
    course = [{"step": 1, "loss": 0.5, "held": None}, {"step": 2, "loss": 0.4, "held": 0.3}]
    for document in ({"course": course}, {"training": {"course": course}}):
        (plot,) = charts_of(document)
        assert {name: [s.x for s in line] for name, line in plot.lines.items()} == {
            "held-out samples": [2], "batches": [1, 2]
        }  # fmt: skip


def test_a_loss_below_zero_has_no_logarithm():
    for loss, is_log in ((0.5, True), (0.0, False), (-0.5, False)):
        (plot,) = charts_of(
            {"course": [{"step": 1, "loss": loss, "held": 0.1}, {"step": 2, "loss": 0.4, "held": None}]}
        )
        assert plot.is_log is is_log and len(plot.all_spots) == 3


def test_a_trial_without_a_value_is_left_out():
    """As that of a model whose outputs are the original's: no noise, and so no ratio to it."""
    search = searched()["search"]
    trials = [search["trials"][0] | {"values": {}}, *search["trials"][1:]]
    plot = charts_of({"search": search | {"trials": trials}})[0]
    assert [s.number for s in plot.spots if s.number] == list(range(2, len(trials) + 1))
    assert charts_of({"search": search | {"trials": trials[:1]}}) == []


def test_times_and_groups_are_bars():
    (times,) = charts_of(BENCHED)
    assert [(b.name, b.before, b.after) for b in times.bars] == [
        ("a.onnx, batch 1", 2e-3, 1e-3), ("b.onnx, batch 1", 1e-3, 5e-4)
    ]  # fmt: skip
    assert "0.500 of the first (0.400 to 0.600)" in times.bars[1].told and times.compares
    (groups,) = charts_of(inspected())
    assert isinstance(groups, BarPlot) and not groups.compares
    assert {b.name: b.after for b in groups.bars} == {g["name"]: g["params"] for g in inspected()["groups"]}


def test_scores_of_models_are_bars_by_measure():
    models = [{"model": "a", "metrics": {"accuracy": 0.9, "auc": None}}, {"model": "b", "metrics": {"accuracy": 0.8}}]
    (plot,) = charts_of({"models": models})
    assert plot.measure == "accuracy" and [(b.before, b.after) for b in plot.bars] == [(0.9, 0.9), (0.9, 0.8)]


def test_blocks_are_bars_and_those_that_are_dropped_are_gone():
    block = {"name": "a", "kind": "block", "nodes": 3, "params": 5, "macs": 7, "dropped": True, "stays": ""}
    (plot,) = charts_of({"blocks": [block, block | {"name": "b", "dropped": False, "stays": "it is the first"}]})
    assert [(b.name, b.before, b.after, b.locked) for b in plot.bars] == [
        ("a", 5, 0, ""), ("b", 5, 5, "it is the first")
    ]  # fmt: skip


def test_there_is_nothing_to_draw_of_nothing():
    assert charts_of({"format": "x", "groups": [{"name": "a", "units": 3}]}) == []


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_numbers_of_an_axis_lie_in_its_range(low, span):
    high = low + span
    numbers = round_numbers(low, high)
    slack = 1e-6 * max(span, abs(low), abs(high))
    assert numbers == sorted(numbers) and len(numbers) <= 8
    assert all(low - slack <= x <= high + slack for x in numbers)


def test_numbers_of_an_axis_are_round():
    assert round_numbers(0, 100) == [0, 20, 40, 60, 80, 100]
    assert round_numbers(1e-7, 1.2, is_log=True) == pytest.approx([1e-7, 1e-5, 1e-3, 1e-1])
    assert round_numbers(0.2, 0.3, is_log=True)[:2] == pytest.approx([0.2, 0.22])
    assert round_numbers(3, 3) == [3]
