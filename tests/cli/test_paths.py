"""Files that are read and written."""

from __future__ import annotations

from pathlib import Path

from onnxprune.cli import paths
from tests.cli.conftest import DIGITS, widths


def test_pipes(run, small):
    ran = run("prune", "-", "-o", "-", stdin=Path(DIGITS).read_bytes())
    assert ran.code == 0 and ran.raw == small.read_bytes()
    assert "proof" in ran.err
    assert run("prune", "-", "-o", "-", "-q", stdin=Path(DIGITS).read_bytes()).err == ""


def test_force_overwrites(run, small):
    assert run("prune", DIGITS, "-o", small, "--ratio", 0.25).code == 2
    assert run("prune", DIGITS, "-o", small, "--ratio", 0.25, "--force").code == 0
    assert widths(small)["conv.weight"][0] == 24


def test_a_place_for_finished_work_is_checked_before_it(run, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "below.jsonl"):
        ran = run("prune", DIGITS, "--dry-run", "--data", "random", "--cache", place)
        assert ran.code == 2 and "cannot write" in ran.err
    paths.check_kept(str(tmp_path / "new" / "folder" / "kept.jsonl"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
