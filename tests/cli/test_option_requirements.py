"""Options that would do nothing are not ignored without a word."""

from __future__ import annotations

import pytest

from onnxprune.cli.app import COMMANDS, app
from onnxprune.cli.option_requirements import REQUIREMENTS
from onnxprune.errors import UsageError
from onnxprune.recovery import METHODS
from tests.cli.conftest import DIGITS, MODELS, run

__all__ = ["run"]  # the fixture
DATA = str(MODELS / "digits_calibration.npz")
TARGETS = "--max-drop, --min-sqnr or --max-divergence"
USES = "--time, --only-if-faster, --latency, --round-to auto or --train"
TARGETS_AND = TARGETS.replace(" or", ",")


@pytest.mark.parametrize(
    ("command", "given", "name", "add"),
    [
        ("prune", ("--provider", "CUDA"), "--provider", USES),
        ("prune", ("--threads", 1), "--threads", USES),
        (
            "prune",
            ("--provider", "CPU", "--round-to", 8),
            "--provider",
            USES,
        ),
        ("prune", ("--recover", "least-squares"), "--recover", "--data"),
        ("prune", ("--recover", "affine"), "--recover", "--data"),
        ("prune", ("--samples", 8), "--samples", "--data"),
        ("prune", ("--tokenizer", "t.json"), "--tokenizer", "--data"),
        ("prune", ("--max-trials", 3), "--max-trials", TARGETS),
        ("prune", ("--search", "params"), "--search", TARGETS),
        ("prune", ("--trials", "x"), "--trials", TARGETS),
        ("prune", ("--cache", "x"), "--cache", "--data"),
        ("prune", ("--jobs", 2), "--jobs", f"{TARGETS_AND} or --train"),
        ("prune", ("--dask", "tcp://127.0.0.1:1"), "--dask", f"{TARGETS_AND} or --train"),
        ("prune", ("--data", DATA, "--parts", 2), "--parts", "--train"),
        ("sparsify", ("--data", DATA, "--resume"), "--resume", "--train"),
        ("prune", ("--ratio", 0.5, "--max-ratio", 0.3), "--max-ratio", "--macs"),
        ("prune", ("--normalize", "mean"), "--normalize", "--allocation global"),
        ("plan", ("--threads", 1), "--threads", "--latency or --round-to auto"),
        ("plan", ("--samples", 8), "--samples", "--data"),
        ("inspect", ("--threads", 1), "--threads", "add --time,"),
        ("apply", ("plan.json", "--recover", "affine"), "--recover", "--data"),
        ("sensitivity", ("--samples", 8, "--eval", "wc -c < {model}"), "--samples", "--data"),
    ],
)
def test_what_is_typed_in_vain_is_refused(run, tmp_path, command, given, name, add):
    output = () if command in ("inspect", "sensitivity") else ("-o", tmp_path / "out")
    done = run(command, DIGITS, *given, *output)
    assert done.code == 2 and done.raw == b""
    error, hint = done.err.splitlines()
    assert error.startswith(f"error: {name} has no effect: ")
    assert hint.startswith("hint: add ") and add in hint and hint.endswith(f"or leave out {name}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        ("--recover", "bias"),
        ("--recover", "none"),
        ("--samples", 8, "--recover", "least-squares", "--data", DATA, "--criterion", "l2"),
        ("--max-ratio", "0.5", "--allocation", "global", "--normalize", "mean"),
        ("--max-ratio", "0.5", "--macs", "80%"),
    ],
)
def test_what_has_an_effect_is_not(run, given):
    done = run("prune", DIGITS, "--dry-run", "--no-verify", *given)
    assert (done.code, "no effect" in done.err) == (0, False), done.err


def test_a_recipe_is_for_many_runs_and_only_warned_of(run, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[prune]\nthreads = 1\nsamples = 8\nrecover = "least-squares"\nmax-trials = 8\n')
    done = run("--config", recipe, "prune", DIGITS, "--dry-run", "--no-verify")
    assert done.code == 0
    *warnings, _ = done.err.splitlines()
    assert warnings == [
        f"warning: --threads (in {recipe}) has no effect: nothing is timed or trained; add --time, --only-if-faster, "
        "--latency, --round-to auto or --train",
        f"warning: --samples (in {recipe}) has no effect: there is no data; add --data",
    ]  # the others say what is so by default
    assert run("--config", recipe, "prune", DIGITS, "--dry-run", "--no-verify", "-q").err == ""
    assert "--samples" not in run("--config", recipe, "prune", DIGITS, "--dry-run", "--data", DATA, "-r", "0.1").err


def test_so_is_a_variable(run, monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_PRUNE_THREADS", "1")
    done = run("prune", DIGITS, "--dry-run", "--no-verify")
    assert done.code == 0 and "warning: --threads (ONNXPRUNE_PRUNE_THREADS) has no effect" in done.err


def test_sensitivity_has_no_steps(run):
    from onnxprune import sensitivity

    assert "no such option '--steps'" in run("sensitivity", DIGITS, "--data", DATA, "--steps", 2).err
    for given in ({"steps": 2}, {"rows": {"w": [1]}}):
        with pytest.raises(UsageError, match="one group at a time"):
            sensitivity(DIGITS, DATA, **given)


def test_the_table_names_options_that_there_are():
    known = {name for command in COMMANDS for p in app.get_command(None, command).params for name in p.opts}
    assert {
        text.split()[0] for requirement in REQUIREMENTS for text in (*requirement.options, *requirement.one_of)
    } <= known


def test_methods_that_need_data_are_all_but_those_that_do_not():
    (named,) = [text for requirement in REQUIREMENTS for text in requirement.options if text.startswith("--recover ")]
    assert set(named.split()[1].split("|")) == {m.name for m in METHODS.values() if m.needs_data}
