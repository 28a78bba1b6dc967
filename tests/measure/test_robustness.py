"""The long runs behind docs/robustness.md: they can be done in parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.measure import fuzz, kills, robustness


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    ran: list[int] = []
    section = robustness.Section(3, lambda count: [[n] for n in range(count)], ran.append, lambda results: iter(()))
    progress = tmp_path / "progress.jsonl"
    assert robustness.measured(section, 3, progress, -1) is None
    assert robustness.measured(section, 2, progress, 1) is not None
    found = robustness.measured(section, 3, progress, 1)
    assert found is not None and [entry["batch"] for entry in found] == [[0], [1], [2]]
    assert ran == [0, 1, 2]


@pytest.mark.parametrize(("name", "count"), [("graphs", 6), ("files", 2), ("kills", 4)])
def test_tables(tmp_path: Path, name: str, count: int) -> None:
    """The results survive being written down, and the table counts all of them."""
    section, progress = robustness.SECTIONS[name], tmp_path / "progress.jsonl"
    first, second = (robustness.measured(section, count, progress, 10) for _ in range(2))
    assert first is not None and first == second
    rows = [line.split(" | ") for line in section.table([entry["result"] for entry in first]) if line.startswith("| ")]
    assert sum(int(row[1]) for row in rows[2:] if row[0] != "| **all**") == count


def test_every_part_is_there() -> None:
    batches = robustness.graph_batches(10_000)
    assert sum(size for _, _, size in batches) >= 10_000 and len({str(b) for b in batches}) == len(batches)
    assert [n for start, stop in robustness.file_batches(2000) for n in range(start, stop)] == list(range(2000))
    assert [kills.KINDS[index] for index, _ in robustness.kill_batches(200)] == list(kills.KINDS)


def test_an_internal_error_counts_as_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import cli

    for code in (70, 1, 99):
        monkeypatch.setattr(cli, "main", lambda arguments, code=code: code)
        assert fuzz.prune(tmp_path / "m.onnx", tmp_path / "out.onnx")["outcome"] in fuzz.FAILURES
