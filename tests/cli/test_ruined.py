"""A model whose outputs have nothing to do with the original's is not handed out in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.recovery import RecoveryOptions as Recovery
from onnxprune.runtime import Agreement, AgreementAccumulator
from onnxprune.typing import Array
from tests.cli.conftest import MODELS, Run, run
from tests.graphs.net import Net

__all__ = ["run"]  # the fixture


def tallied(wanted: Array, found: Array) -> Agreement:
    tally = AgreementAccumulator()
    tally.add([wanted], [found])
    return tally.agreement()


def test_an_error_larger_than_the_outputs_is_ruin() -> None:
    a = np.random.default_rng(0).normal(size=(40, 3, 5))
    assert "larger than the outputs" in tallied(a, -a).ruin
    assert tallied(a, 0.5 * a).ruin == ""


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_classes_by_chance_are_ruin(classes: int) -> None:
    """However small the error is beside a large mean."""
    rng = np.random.default_rng(1)
    a, b = (100 + rng.normal(size=(2000, classes)) for _ in range(2))
    assert tallied(a, b).sqnr > 30
    assert "by chance" in tallied(a, b).ruin
    assert tallied(a, 0.7 * a + 0.3 * b).ruin == ""


def test_what_always_gives_the_same_class_is_ruin() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(200, 5)) + 9
    b = a * 0 + [9, 9, 9, 9, 9.1]
    assert "by chance" in tallied(a, b).ruin


@pytest.mark.parametrize("rows", [1, 5, 15])
def test_few_rows_say_nothing(rows: int) -> None:
    a = 9 + np.random.default_rng(2).normal(size=(rows, 5))
    assert tallied(a, a[:, ::-1].copy()).ruin == ""


def test_rows_of_one_class_say_nothing() -> None:
    a = np.random.default_rng(3).normal((9, 0), 1, (200, 2))
    assert tallied(a, a + 0.01).ruin == ""


def together(**outputs: tuple[Array, Array]) -> Agreement:
    tally = AgreementAccumulator(list(outputs))
    tally.add([a for a, _ in outputs.values()], [b for _, b in outputs.values()])
    return tally.agreement()


def test_a_large_output_hides_no_small_one() -> None:
    """The state of a recurrence that is kept, and what the network is for."""
    rng = np.random.default_rng(3)
    state, score = 10 * rng.normal(size=(64, 2, 128)), rng.uniform(size=(64, 1))
    kept = state + 0.1 * rng.normal(size=state.shape)
    found = together(probability=(score, -score), state=(state, kept))
    assert found.sqnr > 20 and found.ruin.startswith("output 'probability': their error is larger")
    assert together(probability=(score, score), state=(state, -state)).ruin.startswith("output 'state': ")
    assert together(probability=(score, 0.9 * score), state=(state, kept)).ruin == ""
    classes = rng.normal(size=(64, 4)) + 9
    assert "output 'classes'" in together(classes=(classes, classes[::-1].copy()), state=(state, kept)).ruin


def test_a_score_that_says_nothing_is_ruin() -> None:
    """A detector that always gives the same, or something else, however small the error beside the mean is."""
    rng = np.random.default_rng(4)
    score = rng.uniform(size=(200, 1)) + 1
    for silent in (score * 0 + score.mean(), rng.permutation(score)):
        assert tallied(score, silent).sqnr > 10 and "rise and fall" in tallied(score, silent).ruin
    assert tallied(score, 0.5 * score + 0.7 + 0.1 * rng.normal(size=score.shape)).ruin == ""
    assert tallied(score[:9], score[:9] * 0 + 1.5).ruin == ""  # too few
    assert tallied(score * 0 + 1, score * 0 + 1.1).ruin == ""  # the original says nothing either
    assert tallied(score, np.full_like(score, np.nan)).ruin


def test_an_output_of_zeros_says_nothing() -> None:
    rng = np.random.default_rng(5)
    a, zeros = rng.normal(size=(32, 3, 5)), np.zeros((32, 3, 2))
    assert together(a=(a, 0.9 * a), b=(zeros, zeros + 1e-9)).ruin == ""


def test_nothing_to_compare_is_no_ruin() -> None:
    assert AgreementAccumulator().agreement().ruin == ""
    assert tallied(np.arange(6).reshape(2, 3), np.zeros((2, 3), np.int64)).ruin == ""


def fragile() -> onnx.ModelProto:
    """Outputs that are small differences of large numbers: a cut ruins them."""
    net = Net()
    hidden = net.add("Relu", net.add("MatMul", net.input(["N", 8], name="x"), net.weight(8, 32, name="w")))
    net.output(net.add("MatMul", net.add("Exp", net.add("MatMul", hidden, net.weight(32, 24))), net.weight(24, 4)))
    return net.proto()


def samples(count: int = 40) -> list[dict[str, Array]]:
    return [{"x": np.random.default_rng(i).normal(size=(8, 8)).astype(np.float32)} for i in range(count)]


def test_the_library_tells_and_raises_nothing() -> None:
    spoiled = api.run(load(fragile()), Options(ratio=0.9), data=samples(), recovery=Recovery("none"))
    assert spoiled.judged is not None
    assert spoiled.recovery is None
    assert spoiled.judged.is_known
    assert onnxprune.prune(fragile(), 0.5).report.judged is None


@pytest.fixture
def told(tmp_path: Path) -> dict[str, str]:
    np.savez(tmp_path / "x.npz", image=np.load(MODELS / "digits_calibration.npz")["image"])
    return {"model": str(MODELS / "digits.onnx"), "data": str(tmp_path / "x.npz"), "out": str(tmp_path / "o.onnx")}


def test_the_command_says_so_last_and_exits_with_1(run: Run, told: dict[str, str]) -> None:
    given = ["prune", told["model"], "-o", told["out"], "--ratio", "0.97", "--data", told["data"], "--recover", "none"]
    done = run(*given)
    assert done.code == 1
    assert done.err.strip().splitlines()[-1].startswith("warning: on held-out samples the outputs are far from")
    assert Path(told["out"]).exists()
    accepted = run(*given, "--force", "--accept-damage")
    assert accepted.code == 0
    assert accepted.err.strip().splitlines()[-1].startswith("warning: on held-out samples")
    quiet = run(*given, "--force", "-q")
    assert (quiet.code, quiet.err.count("\n")) == (1, 1)
    shown = run(*given, "--force", "--json")
    assert shown.code == 1
    assert json.loads(shown.out)["damage"]["ruined"] is True


def test_a_missed_budget_is_said_before(run: Run, told: dict[str, str]) -> None:
    budget = ["--params", "0.01%", "--max-ratio", "0.97", "--allocation", "uniform", "--criterion", "l2"]
    done = run(*["prune", told["model"], "-o", told["out"], "--data", told["data"], "--recover", "none"], *budget)
    assert done.code == 1
    lines = done.err.strip().splitlines()
    assert lines[-1].startswith("warning: on held-out samples")
    assert any(line.startswith("error: ") for line in lines)


def test_what_is_healthy_or_unknown_exits_with_0(run: Run, told: dict[str, str]) -> None:
    done = run("prune", told["model"], "-o", told["out"], "--ratio", "0.5", "--data", told["data"], "--json")
    assert done.code == 0
    assert json.loads(done.out)["damage"] == {"ruined": False, "why": ""}
    blind = run("prune", told["model"], "-o", told["out"], "--force", "--ratio", "0.97", "--json")
    assert blind.code == 0
    assert json.loads(blind.out)["damage"] is None


def test_apply_says_so_too(run: Run, told: dict[str, str], tmp_path: Path) -> None:
    plan = str(tmp_path / "p.json")
    assert run("plan", told["model"], "-o", plan, "--ratio", "0.97").code == 0
    given = ["apply", told["model"], plan, "-o", told["out"], "--data", told["data"], "--recover", "none"]
    done = run(*given)
    assert done.code == 1
    assert done.err.strip().splitlines()[-1].startswith("warning: on held-out samples")
    assert run(*given, "--force", "--accept-damage").code == 0
