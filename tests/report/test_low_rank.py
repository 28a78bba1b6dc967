"""The account of products."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.report import low_rank as report
from tests.report.runs import factorised, plain


def test_lines_name_weights_ranks_and_what_is_lost() -> None:
    done = factorised()
    lines = report.low_rank_lines(done)
    header = next(i for i, line in enumerate(lines) if line.split()[:2] == ["weight", "operator"])
    first = max(done.weights, key=lambda w: w.elements[0] - w.elements[1])
    assert lines[header + 1].split()[0] == first.name and str(first.rank) in lines[header + 1].split()
    assert any(line.startswith("proof") and "equal to the original with projected weights" in line for line in lines)


def test_weights_beyond_the_first_are_counted() -> None:
    done = factorised()
    many = replace(done, weights=tuple(done.weights[:1] * (report.MOST + 4)))
    assert "and 4 more" in report.low_rank_lines(many)


def test_weights_that_stay_whole_are_counted_by_why() -> None:
    lines = report.low_rank_lines(replace(factorised(), left={"a": "is small", "b": "is small", "c": "is slow"}))
    assert any("2 weights: is small" in line for line in lines) and any("1 weight: is slow" in line for line in lines)


def test_a_plan_says_its_products() -> None:
    done = factorised()
    ranks = sorted(step.rank for step in done.plan.factors)
    (line,) = report.factor_lines(done.plan)
    assert f"ranks {ranks[0]} to {ranks[-1]}" in line and report.factor_lines(replace(done.plan, factors=())) == []


def test_data_are_the_same_figures() -> None:
    done = factorised()
    found = plain(report.low_rank_data(done))
    assert [w["rank"] for w in found["weights"]] == [w.rank for w in done.weights]
    assert found["after"]["params"] < found["before"]["params"] and found["proof"]["ok"] is True
