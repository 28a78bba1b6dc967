"""The account of dropped blocks."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.pipelines.expert_groups import ExpertGroup
from onnxprune.proof import Verdict
from onnxprune.report import drop as report
from onnxprune.rewriting import IoRename
from tests.report.runs import dropped, plain


def test_lines_say_what_went() -> None:
    done = dropped()
    text = "\n".join(report.drop_lines(done))
    (block,) = done.dropped
    assert f"1 block of {len([b for b in done.blocks if b.block.kind != 'branch'])}: {block.block.name}" in text
    assert "by parameters" in text and "largest error" in text and "squared output error" not in text


def test_data_are_the_same_figures() -> None:
    found = plain(report.drop_data(dropped()))
    assert [b["name"] for b in found["blocks"] if b["dropped"]] == [b.block.name for b in dropped().dropped]
    assert found["before"]["params"] > found["after"]["params"] and found["proof"]["ok"] is True
    assert found["repair"] is None and found["stand_ins"] == []


def test_a_table_of_blocks() -> None:
    lines = report.block_lines(dropped().blocks)
    assert lines[0].split() == ["block", "kind", "params", "MACs", "nodes"] and len(lines) == 1 + len(dropped().blocks)
    kept = replace(dropped().blocks[0], why="it is kept")
    assert "stays: it is kept" in report.block_lines([kept])[1]
    assert report.block_lines([]) == ["no part of the graph has one input and one output of the same shape"]


def test_a_proof_in_a_line() -> None:
    good = Verdict(True, 1e-7, 1e-4, "", {}, checks=("valid", "equal to the original without the block"))
    assert (
        report.proof_line(good) == "equal to the original without the block, largest error 1.0e-07 (tolerance 1.0e-04)"
    )
    assert report.proof_line(Verdict(False, 1.0, 1e-4, "y differs", {})) == "failed: y differs"


def test_many_changes_of_the_interface_are_counted() -> None:
    renames = [IoRename("input", f"past_{i}", "") for i in range(report.MOST + 3)]
    lines = report.io_lines(renames)
    assert len(lines) == report.MOST + 1 and "input past_0 -> (gone)" in lines[0] and "3 more changes" in lines[-1]


def test_a_plan_says_its_blocks() -> None:
    (line,) = report.bypass_lines(dropped().plan)
    assert dropped().dropped[0].block.name in line
    assert report.bypass_lines(replace(dropped().plan, bypasses=())) == []


def test_experts_are_named_with_what_takes_them_out() -> None:
    (line,) = report.expert_lines([ExpertGroup("route", "moe", 4, ("route", "first", "second"))])
    assert line.startswith("experts") and "4 of moe: prune --only route --ratio 0.25 drops one" in line
