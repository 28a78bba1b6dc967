"""`onnxprune run` gives what its commands give one by one, goes on after a kill, and refuses what is wrong."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cli.app import COMMANDS, STEPS
from onnxprune.cli.steps import command_of
from onnxprune.model import load
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")
INPUTS = ("--data", DATA, "--samples", "64")
RECIPE = """
[[step]]
run = "prune"
macs = "50%"
plan-out = "{folder}/plan.json"

[[step]]
run = "train"
steps = 12
rate = 3e-4
batch = 32

[[step]]
run = "sparsify"
pattern = "2:4"
method = "wanda"
time = false
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_same_as_the_commands_one_by_one(run: Run, recipe: Path, tmp_path: Path) -> None:
    ran = run("run", recipe, DIGITS, "-o", tmp_path / "o.onnx", *INPUTS, "--json", "--no-time")
    assert ran.code == 0, ran.err
    one, two, three = (tmp_path / f"{number}.onnx" for number in (1, 2, 3))
    assert run("prune", DIGITS, "-o", one, "--macs", "50%", *INPUTS).code == 0
    taught = ("--teacher", DIGITS, "--steps", 12, "--rate", 3e-4, "--batch", 32)
    assert run("train", one, "-o", two, *INPUTS, *taught).code == 0
    assert run("sparsify", two, "-o", three, *INPUTS, "--pattern", "2:4", "--method", "wanda", "--no-time").code == 0
    assert onnx.load(tmp_path / "o.onnx") == onnx.load(three)
    assert names(tmp_path) == {"recipe.toml", "plan.json", "o.onnx", "1.onnx", "2.onnx", "3.onnx"}
    steps = ran.json["steps"]
    assert [step["verb"] for step in steps] == ["original", "prune", "train", "sparsify"]
    assert steps[3]["bytes"] == three.stat().st_size and steps[0]["nonzeros"] > 2 * steps[3]["nonzeros"]
    assert steps[1]["report"]["format"] == "onnxprune-report" and steps[1]["report"]["proof"]["ok"]
    assert ran.json["outputs"]["sqnr"] > 3 and not ran.json["damage"]["ruined"] and ran.json["resumed"] == 0


TRAINING = """
[[step]]
run = "train"
steps = 6
rate = 1e-3
optimizer = "sgd"
schedule = "linear"
warm-up = 2
batch = 16
accumulate = 2
parts = 2
clip = 1.0
weight-decay = 0.01
rate-for = ["fc*=0.5"]
freeze = ["conv_1*"]
ema = 0.5
augment = ["shift", "colour"]
norm-statistics = true
temperature = 2.0
patience = 5
seed = 3
threads = 1
"""


def test_training_with_all_its_options(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TRAINING)
    given = INPUTS
    assert (
        ran := run("run", tmp_path / "recipe.toml", DIGITS, "-o", tmp_path / "o.onnx", *given, "--no-time")
    ).code == 0, ran.err
    words = [line.partition(" = ") for line in TRAINING.splitlines()[3:]]
    typed = [f"--{name}" if text == "true" else f"--{name}={_typed(text)}" for name, _, text in words]
    ran = run("train", DIGITS, "-o", tmp_path / "p.onnx", *given, "--teacher", DIGITS, *typed)
    assert ran.code == 0, ran.err
    assert onnx.load(tmp_path / "o.onnx") == onnx.load(tmp_path / "p.onnx")


def _typed(text: str) -> str:
    """A value of a recipe as it is typed."""
    return text.strip("[]").replace('"', "").replace(", ", ",")


def test_the_account(run: Run, recipe: Path, tmp_path: Path) -> None:
    ran = run("run", recipe, DIGITS, "-o", tmp_path / "o.onnx", *INPUTS, "--keep-steps")
    assert ran.code == 0, ran.err
    assert "3 sparsify" in ran.out and "step 1, prune: proven" in ran.out and "speed" in ran.out
    assert "dB" in ran.out
    kept = {"1-prune.onnx", "2-train.onnx", "3-sparsify.onnx", "journal.jsonl"}
    assert names(tmp_path / "o.onnx.steps") == kept
    assert onnx.load(tmp_path / "o.onnx") == onnx.load(tmp_path / "o.onnx.steps" / "3-sparsify.onnx")


def test_a_killed_run_goes_on(run: Run, recipe: Path, tmp_path: Path) -> None:
    """It is killed when the first step is done, and again at a random moment: the result is that of a whole run."""
    whole, killed = tmp_path / "whole.onnx", tmp_path / "killed.onnx"
    options = [*INPUTS, "--no-time", "-q"]
    assert run("run", recipe, DIGITS, "-o", whole, *options).code == 0
    command = [sys.executable, "-m", "onnxprune", "run", str(recipe), DIGITS, "-o", str(killed), *options, "--resume"]
    journal = tmp_path / "killed.onnx.steps" / "journal.jsonl"
    started = subprocess.Popen(command, cwd=MODELS.parent)
    while not journal.exists() and started.poll() is None:
        time.sleep(0.02)
    started.kill()
    assert started.wait() == -signal.SIGKILL
    assert not killed.exists() and (tmp_path / "killed.onnx.steps" / "1-prune.onnx").exists()
    started = subprocess.Popen(command, cwd=MODELS.parent)
    time.sleep(random.Random(0).uniform(1, 2))
    started.kill()
    started.wait()
    refused = run("run", recipe, DIGITS, "-o", killed, *INPUTS)
    assert refused.code == 2 and "--resume goes on with them" in refused.err
    ran = run("run", recipe, DIGITS, "-o", killed, *INPUTS, "--no-time", "--resume", "--json")
    assert ran.code == 0 and ran.json["resumed"] >= 1, ran.err
    assert killed.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "killed.onnx.steps").exists()


def test_only_what_changed_is_done_again(run: Run, recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    given = ("run", recipe, DIGITS, "-o", output, *INPUTS, "--no-time", "--json", "--keep-steps")
    assert run(*given).json["resumed"] == 0
    assert run(*given, "--resume", "--force").json["resumed"] == 3
    recipe.write_text(recipe.read_text().replace('pattern = "2:4"', 'pattern = "1:4"'))
    ran = run(*given, "--resume", "--force")
    assert ran.json["resumed"] == 2
    weight = load(output).array("fc_1.weight") if "fc_1.weight" in load(output).initializers else None
    assert weight is None or np.count_nonzero(weight) <= weight.size / 4
    recipe.write_text(recipe.read_text().replace("50%", "60%"))
    assert run(*given, "--resume", "--force").json["resumed"] == 0


def test_a_step_that_fails_keeps_those_before_it(run: Run, recipe: Path, tmp_path: Path) -> None:
    good = recipe.read_text()
    recipe.write_text(good.replace('pattern = "2:4"', 'keep = "*"'))
    given = ("run", recipe, DIGITS, "-o", tmp_path / "o.onnx", *INPUTS, "--no-time")
    ran = run(*given)
    assert ran.code == 1 and "error: step 3, sparsify: nothing to change" in ran.err
    assert "--resume goes on from there" in ran.err and not (tmp_path / "o.onnx").exists()
    recipe.write_text(good)
    ran = run(*given, "--resume", "--json")
    assert ran.code == 0 and ran.json["resumed"] == 2, ran.err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no steps"),
        ("step = 3", "has no steps"),
        ("step = [3]", "no command @ $.step[0].run"),
        ("[[step]]\nratio = 0.5", "no command @ $.step[0].run"),
        ('[[step]]\nrun = "bench"', "unknown command 'bench' @ $.step[0].run"),
        ("[[step]]\nrun = 3", "unknown command 3 @ $.step[0].run"),
        ('[[step]]\nrun = "prune"\nratoi = 0.5', "unknown option 'ratoi' @ $.step[0].ratoi"),
        ('[[step]]\nrun = "prune"\nratio = [0.5]', "takes one value, not a list @ $.step[0].ratio"),
        ('[[step]]\nrun = "prune"\noutput = "x.onnx"', "'output' cannot be set by a step"),
        ('[[step]]\nrun = "train"\nresume = true', "'resume' cannot be set by a step"),
        ('[[step]]\nrun = "train"\nsteps = "many"', "must be a whole number, not a text @ $.step[0].steps"),
        ("tool.onnxprune = 3", "is no table"),
        ("[[step]\n", "is not TOML"),
    ],
)
def test_recipes_that_are_wrong(run: Run, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    ran = run("run", tmp_path / "recipe.toml", DIGITS, "-o", tmp_path / "o.onnx", *INPUTS)
    assert ran.code == 2 and problem in ran.err and ran.err.startswith("error: "), ran.err
    assert names(tmp_path) == {"recipe.toml"}


def test_the_first_step_that_fails_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[[step]]\nrun = "prune"\nratio-for = "nothing=0.5"\n')
    ran = run("run", tmp_path / "recipe.toml", DIGITS, "-o", tmp_path / "o.onnx")
    assert ran.code == 2 and "step 1, prune" in ran.err and names(tmp_path) == {"recipe.toml"}


def test_places_that_are_taken(run: Run, recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    (tmp_path / "o.onnx.steps").write_text("mine")
    ran = run("run", recipe, DIGITS, "-o", output, *INPUTS, "--force")
    assert ran.code == 2 and "is no folder of steps" in ran.err
    (tmp_path / "o.onnx.steps").unlink()
    (tmp_path / "o.onnx.steps").mkdir()
    (tmp_path / "o.onnx.steps" / "mine.txt").write_text("mine")
    ran = run("run", recipe, DIGITS, "-o", output, *INPUTS, "--force")
    assert ran.code == 2 and "holds other files: mine.txt" in ran.err
    assert (tmp_path / "o.onnx.steps" / "mine.txt").read_text() == "mine" and not output.exists()
    assert "never overwritten" in run("run", recipe, DIGITS, "-o", recipe, "--force").err
    assert "-o FILE is missing" in run("run", recipe, DIGITS).err
    assert "--resume needs a file" in run("run", recipe, DIGITS, "-o", "-", "--resume").err


def test_a_dry_run_writes_nothing_but_tells_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[[step]]\nrun = "prune"\n[[step]]\nrun = "shrink"\n')
    ran = run("run", tmp_path / "recipe.toml", DIGITS, "--dry-run", "--json", "--no-time")
    assert ran.code == 0, ran.err
    assert len(ran.json["steps"]) == 3 and ran.json["outputs"] is None and names(tmp_path) == {"recipe.toml"}


def test_damage_is_judged_at_the_end(run: Run, tmp_path: Path) -> None:
    ruin = '[[step]]\nrun = "prune"\nratio = 0.97\nrecover = "none"\n'
    (tmp_path / "recipe.toml").write_text(ruin)
    given = ("run", tmp_path / "recipe.toml", DIGITS, "-o", tmp_path / "o.onnx", *INPUTS, "--no-time")
    ran = run(*given)
    assert ran.code == 1 and ran.err.strip().splitlines()[-1].startswith("warning: on held-out samples"), ran.err
    assert (tmp_path / "o.onnx").exists()
    assert run(*given, "--force", "--accept-damage").code == 0


def test_a_recipe_may_hold_tables_of_commands_too(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[prune]\nratio = 0.25\n[[step]]\nrun = "shrink"\n')
    ran = run("--config", recipe, "prune", DIGITS, "-o", tmp_path / "o.onnx", "--json")
    assert ran.code == 0 and ran.json["after"]["params"] > 0.5 * ran.json["before"]["params"]


def test_options_of_all_steps_and_of_their_own(run: Run, tmp_path: Path) -> None:
    """What `run` is given goes to every step that knows it and does not say otherwise; the key of a step holds it."""
    from onnxprune.cli.steps import steps_of

    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\nrun = "prune"\nsamples = 8\n[[step]]\nrun = "train"\nsteps = 3\nlabels = "y"\n')
    prune, train = steps_of(str(recipe), {"samples": 16, "data": DATA, "time": False}, teacher=DIGITS)
    assert prune.options == {"samples": 8, "data": DATA, "time": False}
    assert train.options == {"samples": 16, "data": DATA, "training_steps": 3, "labels": "y"}
    assert prune.key("a") != prune.key("b") and json.loads(json.dumps(prune.key("a"))) == prune.key("a")


@pytest.mark.parametrize("name", STEPS)
def test_steps_take_and_give_one_model(name: str) -> None:
    takes = {parameter.name for parameter in command_of(name).params}
    assert name in COMMANDS and {"model", "output", "force", "as_json"} <= takes


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ('run = "sparsify"\nsparsity = 1.5', "step 2, sparsify: "),
        ('run = "train"\nsteps = 3\ndata = "nowhere.npz"', "step 2, train: no such file: nowhere.npz"),
        ('run = "prune"\nratio = 0.2\nmax-trials = 3', None),
    ],
)
def test_all_steps_are_checked_before_the_first(run: Run, tmp_path: Path, last: str, said: str | None) -> None:
    """What is wrong ends the run at once; what has no effect is said once, when its turn comes."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[[step]]\nrun = "shrink"\n[[step]]\n{last}\n')
    ran = run("run", recipe, DIGITS, "-o", tmp_path / "o.onnx", "--no-time", "-v")
    if said is None:
        assert ran.code == 0 and ran.err.count("has no effect") == 1, ran.err
    else:
        assert ran.code == 2 and said in ran.err and "step 1, shrink" not in ran.err, ran.err
        assert names(tmp_path) == {"recipe.toml"}
