"""`bench`: models timed against each other."""

from __future__ import annotations

import pytest

from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.runtime.clocks import DIGITS


def test_command(run):  # noqa: F811
    ran = run("bench", DIGITS, DIGITS, "--threads", 1, "--seconds", 0, "--runs", 6, "--json")
    assert ran.code == 0 and ran.json["format"] == "onnxprune-bench" and ran.json["threads"] == 1
    assert [m["name"] for m in ran.json["models"]] == ["digits.onnx"] * 2
    assert ran.json["models"][1]["timings"][0]["ratio"]["low"] > 0
    shown = run("bench", DIGITS, "--threads", 1, "--seconds", 0, "--runs", 1, "--batch", "1,3").out.splitlines()
    assert shown[0].split() == ["inputs", "image", "1x1x8x8"] and len(shown) == 5
    assert shown[-1].split()[1] == "3" and shown[-1].endswith("(first)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--provider", "TPU"], "no provider 'TPU' here"),
        (["--batch", "1,0"], "not a list of positive numbers"),
        (["--shape", "image=1x-3"], "is not a shape"),
        (["--shape", "image=1x3"], "cannot be 1x3"),
        (["--shape", "picture=1"], "no input is called 'picture'"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, arguments, said):  # noqa: F811
    ran = run("bench", DIGITS, *arguments)
    assert ran.code == 2 and said in ran.err
