"""Files that are read and written."""

from __future__ import annotations

from pathlib import Path

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
