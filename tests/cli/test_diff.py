"""`diff`: two models side by side."""

from __future__ import annotations

from tests.cli.conftest import DIGITS


def test_diff(run, small):
    ran = run("diff", DIGITS, small)
    assert ran.code == 0 and "64x32x3x3" in ran.out and "32x16x3x3" in ran.out
    shown = run("diff", DIGITS, small, "--json").json
    assert shown["layers"][0]["before"] == [32, 1, 3, 3] and shown["layers"][0]["after"] == [16, 1, 3, 3]
    same = run("diff", DIGITS, DIGITS)
    assert "6 layers unchanged" in same.out and "conv" not in same.out.split("\n", 1)[1]
    assert "32x1x3x3" in run("diff", DIGITS, DIGITS, "--all").out
