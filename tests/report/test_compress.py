"""The account of what was superfluous."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.pipelines.compress import ExactStage
from onnxprune.report import compress as report
from tests.report.runs import compressed, plain


def test_lines_are_a_table_and_what_was_done() -> None:
    done = compressed()
    lines = report.compress_lines(done)
    assert lines[0].split() == ["before", "after", "change"]
    assert [line.split()[0] for line in lines[1:5]] == ["params", "MACs", "nodes", "file"]
    assert any(line.startswith("proof") and "equal to" in line for line in lines)


def test_nothing_to_take_out_is_said() -> None:
    done = compressed()
    idle = replace(done, stages=(), folds=(), nodes=(done.nodes[0],) * 2, sizes=(done.sizes[0],) * 2, after=done.before)
    assert ("nothing is left to take out" in report.compress_lines(idle)) is (not idle.changed)


def test_stages_say_what_they_saved_or_why_they_were_left() -> None:
    good = ExactStage("constants", nodes=(10, 7), sizes=(4096, 2048))
    left = replace(good, name="fusions", left="y differs")
    lines = report.compress_lines(replace(compressed(), stages=(good, left)))
    assert any("constants: 3 nodes, 2.0 KiB less" in line for line in lines)
    assert any("not fusions: y differs" in line for line in lines)


def test_data_are_the_same_figures() -> None:
    done = compressed()
    found = plain(report.compress_data(done))
    assert found["before"]["nodes"] == done.nodes[0] and found["after"]["file"] == done.sizes[1]
    assert len(found["exact"]) == len(done.stages) and found["proof"]["ok"] is True and found["speed"] is None
