"""`onnxprune train`, and `prune --train`: what is written, said and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.model import load
from tests.cli.conftest import DIGITS, MODELS, Run, run
from tests.measure import training_kills

__all__ = ["run"]
DATA, TEST = (str(MODELS / f"digits_{name}.npz") for name in ("calibration", "test"))
ROOT = MODELS.parent


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digits, three quarters of its units removed and repaired."""
    path = str(tmp_path_factory.mktemp("cut") / "cut.onnx")
    command = [sys.executable, "-m", "onnxprune", "prune", DIGITS, "-o", path, "-r", "0.75", "--data", DATA, "-q"]
    subprocess.run([*command, "--no-verify"], check=True, cwd=ROOT)
    return path


def learn(run: Run, cut: str, output: Path, *more: object, steps: int = 10) -> object:
    return run("train", cut, "-o", output, "--data", DATA, "--steps", steps, "--rate", 3e-4, *more)


def test_distilled(run: Run, cut: str, tmp_path: Path) -> None:
    output = tmp_path / "trained.onnx"
    ran = run("train", cut, "-o", output, "--data", DATA, "--teacher", DIGITS, "--steps", 30, "--json")
    assert ran.code == 0, ran.err
    report = ran.json
    assert report["format"] == "onnxprune-training" and report["loss"] == "distil"
    assert report["after"] < report["before"] and len(report["found"]) > 2
    assert [n.op_type for n in onnx.load(output).graph.node] == [n.op_type for n in onnx.load(cut).graph.node]
    assert [p.name for p in tmp_path.iterdir()] == ["trained.onnx"]


def test_labels_and_the_account(run: Run, cut: str, tmp_path: Path) -> None:
    ran = run("train", cut, "-o", tmp_path / "t.onnx", "--data", TEST, "--labels", "label", "--steps", 4)
    assert ran.code == 0, ran.err
    assert "cross-entropy" in ran.out and "held out" in ran.out and "short trials" in ran.out


def test_prune_and_train(run: Run, tmp_path: Path) -> None:
    options = ("-r", "0.75", "--data", DATA, "--train", 10, "--rate", "3e-4", "--batch", 32, "--json")
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", *options)
    assert ran.code == 0, ran.err
    assert ran.json["training"]["steps"] == 10 and ran.json["proof"]["ok"]
    assert ran.json["training"]["after"] <= ran.json["training"]["before"]


def test_prune_while_training(run: Run, tmp_path: Path) -> None:
    options = ("--macs", "40%", "--data", DATA, "--train", 10, "--rate", "3e-4", "--batch", 32, "--every", 2)
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", *options, "--while-training", "soft", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["choosing"]["steps"] == ran.json["training"]["steps"] == 5 and ran.json["proof"]["ok"]
    said = run("prune", DIGITS, "-o", tmp_path / "again.onnx", *options, "--while-training", "soft")
    assert said.code == 0 and "chosen   in 5 steps, learning rate 0.0003; held out" in said.out


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("--train", 5), "--train has no effect: there is no data"),
        (("--data", DATA, "--augment", "flip"), "--augment has no effect: nothing is trained"),
        (("--data", "random", "--train", 5), "training needs inputs"),
        (("--data", DATA, "--while-training", "soft"), "--while-training has no effect: nothing is trained"),
        (("--data", DATA, "--train", 5, "--every", 2), "--every has no effect: nothing is chosen while training"),
        (("--data", DATA, "--train", 9, "--while-training", "soft", "--steps", 3), "or in 3 rounds"),
        (("--data", DATA, "--train", 5, "--augment", "spin"), "'spin' is none of flip, shift"),
    ],
)
def test_prune_refuses(run: Run, tmp_path: Path, given: tuple[object, ...], problem: str) -> None:
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", *given)
    assert ran.code == 2 and problem in ran.err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "code", "problem"),
    [
        ((), 2, "nothing to learn from"),
        (("--teacher", DIGITS, "--loss", "cross-entropy"), 2, "needs labels"),
        (("--teacher", str(MODELS / "mlp.onnx")), 2, "the teacher"),
        (("--teacher", str(MODELS / "resnet.onnx")), 2, "the teacher wants 'image' (float32 [batch, 3, 16, 16])"),
        (("--labels", "label"), 2, "label 'label' is missing"),
        (("--teacher", DIGITS, "--labels", "label"), 2, "distil learns from labels or from a teacher, not both"),
        (("--teacher", DIGITS, "--rate-for", "nothing=2"), 2, "--rate-for: no weight matches 'nothing'"),
        (("--teacher", DIGITS, "--loss", "mse", "--temperature", 5), 2, "--temperature has no effect"),
        (("--teacher", DIGITS, "--freeze", "*"), 3, "all are frozen"),
        (("--teacher", DIGITS, "--freeze", "nothing"), 2, "no weight matches 'nothing'"),
        (("--teacher", DIGITS, "--rate", "0"), 2, "--rate"),
        (("--teacher", "nowhere.onnx"), 2, "no such file"),
        (("--teacher", DIGITS, "--sizes", "n=3"), 2, "no symbolic axis"),
        (("--teacher", DIGITS, "--schedule", "step"), 2, "--schedule"),
    ],
)
def test_train_refuses(run: Run, cut: str, tmp_path: Path, given: tuple[object, ...], code: int, problem: str) -> None:
    ran = learn(run, cut, tmp_path / "t.onnx", *given)
    assert ran.code == code and problem in ran.err, ran.err
    assert ran.err.startswith("error: ") and not list(tmp_path.iterdir())


def test_no_data_and_no_place(run: Run, cut: str, tmp_path: Path) -> None:
    assert "--data SOURCE is missing" in run("train", cut, "-o", tmp_path / "t.onnx", "--steps", 3).err
    assert "never overwritten" in learn(run, cut, Path(cut), "--teacher", DIGITS, "--force").err
    assert "--resume needs a file" in learn(run, cut, Path("-"), "--teacher", DIGITS, "--resume").err
    (tmp_path / "t.onnx.checkpoint").write_bytes(b"something")
    ran = learn(run, cut, tmp_path / "t.onnx", "--teacher", DIGITS)
    assert ran.code == 2 and "--resume goes on with it" in ran.err
    ran = learn(run, cut, tmp_path / "t.onnx", "--teacher", DIGITS, "--resume")
    assert ran.code == 2 and "is no checkpoint" in ran.err
    assert learn(run, cut, tmp_path / "t.onnx", "--teacher", DIGITS, "--force").code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["t.onnx"]


def test_zeros_stay(run: Run, tmp_path: Path) -> None:
    plan, zeroed, trained = (tmp_path / name for name in ("plan.json", "zeroed.onnx", "trained.onnx"))
    assert run("plan", DIGITS, "-o", plan, "-r", "0.5").code == 0
    assert run("apply", DIGITS, plan, "-o", zeroed, "--zero").code == 0
    assert learn(run, str(zeroed), trained, "--teacher", DIGITS, "--keep-zeros").code == 0
    before, after = load(zeroed), load(trained)
    changed = 0
    for name in before.initializers:
        zeros = before.array(name) == 0
        assert (after.array(name)[zeros] == 0).all(), name
        changed += not np.array_equal(before.array(name), after.array(name))
    assert changed


KILLED = (
    ("train", signal.SIGKILL),
    ("train", signal.SIGINT),
    ("prune --train", signal.SIGKILL),
    pytest.param("prune --while-training soft", signal.SIGKILL, marks=pytest.mark.long),
)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return training_kills.commands(tmp_path_factory.mktemp("kills"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "number"), KILLED, ids=str)
def test_killed_at_random_moments(
    commands: dict[str, list[str]], tmp_path: Path, name: str, number: signal.Signals
) -> None:
    """What is resumed equals what was never interrupted, bit for bit, and no file stays behind."""
    done = training_kills.killed(commands[name], tmp_path, 2, number=number)
    assert done.kills == 2 and done.equal == done.finished > 0
