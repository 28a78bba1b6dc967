"""`bench`: models timed against each other."""

from __future__ import annotations

import pytest

from onnxprune.runtime import energy
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.runtime.clocks import DIGITS
from tests.runtime.power import burning, zone


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


QUICK = ("--threads", 1, "--seconds", 0.3, "--runs", 1, "--energy")


def test_energy_that_is_measured(run, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with burning(zone(tmp_path, "intel-rapl:0", "package-0", 0), 30):
        told = run("bench", DIGITS, *QUICK, "--json").json["models"][0]["timings"][0]["energy"]
        lines = run("bench", DIGITS, *QUICK).out.splitlines()
    assert told["estimated"] is False and told["watts"] == pytest.approx(30, rel=0.25) and told["joules"] > 0
    assert "energy" in lines[2].split() and "estimate" not in lines[2]
    assert lines[-1] == "energy   measured by package-0"


def test_energy_that_is_estimated_is_called_so(run, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    told = run("bench", DIGITS, *QUICK, "--batch", "1,8", "--json").json["models"][0]["timings"]
    assert all(timing["energy"]["estimated"] and timing["energy"]["watts"] is None for timing in told)
    assert told[0]["energy"]["joules"] < told[1]["energy"]["joules"] < 8 * told[0]["energy"]["joules"]
    lines = run("bench", DIGITS, *QUICK).out.splitlines()
    assert "energy (estimate)" in lines[2] and lines[-1].startswith("energy   an estimate, no measurement")
    without = run("bench", DIGITS, "--seconds", 0, "--runs", 1)
    assert "energy" not in without.out
