"""`evaluate`: models judged on data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run, run  # noqa: F401 - a fixture
from tests.runtime.clocks import DIGITS

TEST = str(Path(DIGITS).with_name("digits_test.npz"))


def test_command(run: Run, tmp_path: Path) -> None:  # noqa: F811
    small = tmp_path / "small.onnx"
    assert run("prune", DIGITS, "-o", small, "--ratio", "0.5").code == 0
    ran = run("evaluate", DIGITS, small, "--data", TEST, "--labels", "label", "--json")
    assert ran.code == 0 and ran.json["format"] == "onnxprune-evaluation" and ran.json["labels"] == 360
    first, other = ran.json["models"]
    assert first["metrics"]["accuracy"] > 0.98 > 0.6 > other["metrics"]["accuracy"]
    assert sum(other["changes"].values()) == 360 and other["changes"]["lost"] > 100
    shown = run("evaluate", DIGITS, small, "--data", TEST, "--labels", "label", "--metric", "top3, f1").out
    assert "top3" in shown and "f1" in shown and "accuracy " not in shown


def test_the_gate(run: Run, tmp_path: Path) -> None:  # noqa: F811
    small = tmp_path / "small.onnx"
    assert run("prune", DIGITS, "-o", small, "--ratio", "0.5").code == 0
    judged = ("--data", TEST, "--labels", "label", "--max-drop", "1%")
    missed = run("evaluate", DIGITS, small, *judged)
    assert missed.code == 1 and "more than 1% worse" in missed.err
    assert run("evaluate", DIGITS, DIGITS, *judged).code == 0
    lone = run("evaluate", DIGITS, *judged)
    assert lone.code == 2 and "there is one" in lone.err
    command = run("evaluate", small, DIGITS, "--eval", "test -f {model} && echo 1", "--max-drop", "0.5")
    assert command.code == 0 and "value" in command.out


def test_gates_on_outputs_and_time(run: Run, tmp_path: Path) -> None:  # noqa: F811
    small = tmp_path / "small.onnx"
    assert run("prune", DIGITS, "-o", small, "--ratio", "0.5").code == 0
    judged = ("--data", TEST, "--threads", 1)
    far = run("evaluate", DIGITS, small, *judged[:2], "--max-divergence", "1%")
    assert far.code == 1 and "small.onnx: its outputs diverge by error=" in far.err and "more than 0.01" in far.err
    assert "speed" not in far.out
    same = run("evaluate", DIGITS, DIGITS, *judged, "--max-divergence", "1%", "--max-latency", "50%", "--json")
    assert same.code == 1 and "not at most 50 %" in same.err and "diverge" not in same.err
    assert same.json["models"][1]["speed"]["ratio"]["value"] == pytest.approx(1, abs=0.3)
    quick = run("evaluate", DIGITS, small, *judged, "--max-latency", "10s", "--max-divergence", "200%")
    assert quick.code == 0 and "\nspeed    " in quick.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((DIGITS, "--data", TEST, "--max-divergence", "1%"), "--max-divergence compares models with the first"),
        ((DIGITS, "--data", TEST, "--max-latency", "1%"), "--max-latency compares models with the first"),
        ((DIGITS, DIGITS, "--data", TEST, "--max-latency", "fast"), "latency: 'fast' is not an amount"),
        ((DIGITS, DIGITS, "--data", TEST, "--max-divergence", "3dB"), "error: '3dB' is not an amount"),
        ((DIGITS, DIGITS, "--eval", "wc -c < {model}", "--max-divergence", "1%"), "--max-divergence needs inputs"),
        ((DIGITS, DIGITS, "--data", TEST, "--threads", "1"), "--threads has no effect"),
    ],
)
def test_gates_that_cannot_judge_are_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:  # noqa: F811
    ran = run("evaluate", *arguments)
    assert ran.code == 2 and said in ran.err


def test_a_table_of_labels(run: Run, tmp_path: Path) -> None:  # noqa: F811
    test = np.load(TEST)
    np.savez(tmp_path / "inputs.npz", image=test["image"])
    table = tmp_path / "truth.csv"
    table.write_text("digit\n" + "".join(f"{label}\n" for label in test["label"]), encoding="utf-8")
    ran = run("evaluate", DIGITS, "--data", tmp_path / "inputs.npz", "--labels", f"{table}:digit", "--json")
    whole = run("evaluate", DIGITS, "--data", TEST, "--labels", "label", "--json")
    assert ran.code == 0 and ran.json["models"][0]["metrics"] == whole.json["models"][0]["metrics"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to judge by"),
        (["--data", TEST, "--metric", "f1"], "metrics need labels"),
        (["--data", TEST, "--labels", "truth"], "truth"),
        (["--data", TEST, "--labels", "label", "--metric", "best"], "no metric is called 'best'"),
        (["--data", TEST, "--labels", "label", "--judge", "x"], "no output is called 'x'"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(run: Run, arguments: list[str], said: str) -> None:  # noqa: F811
    ran = run("evaluate", DIGITS, *arguments)
    assert ran.code == 2 and said in ran.err


def test_a_measure_that_is_not_there_is_told_before_a_model_is_loaded(run: Run, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    ran = run("evaluate", tmp_path / "broken.onnx", "--data", "random", "--eval", "nowhere_at_all:accuracy")
    assert ran.code == 2 and "nowhere_at_all" in ran.err
