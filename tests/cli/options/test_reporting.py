"""`--report` and `--picture` of every verb: what they write, and what is refused before any work."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import pytest

from onnxprune.cli.app import COMMANDS, app
from tests.cli.conftest import DIGITS, MODELS
from tests.report.test_page import Parsed

DATA = str(MODELS / "digits_calibration.npz")
# Verbs without a result of a model: they list what the program knows, or write an example, or a file to be edited.
SILENT = {"demo", "init", "plan", "criteria", "ops"}


def test_every_verb_with_a_result_has_a_page_and_a_picture():
    context = click.Context(app)
    have = {
        name
        for name in COMMANDS
        if {"report", "picture", "as_json"} <= {p.name for p in app.get_command(context, name).params}
    }
    assert have == {*COMMANDS} - SILENT


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "steps.toml"
    path.write_text('[[step]]\nrun = "prune"\nratio = 0.25\n\n[[step]]\nrun = "shrink"\n')
    return path


def commands(tmp_path, small, recipe) -> dict[str, list]:
    out = tmp_path / "out.onnx"
    return {
        "inspect": ["inspect", DIGITS],
        "prune": ["prune", DIGITS, "-o", out],
        "shrink": ["shrink", DIGITS, "-o", out],
        "compress": ["compress", DIGITS, "-o", out, "--no-time"],
        "compress-ratio": ["compress", DIGITS, "-o", out, "--ratio", "50%", "--no-time"],
        "sparsify": ["sparsify", DIGITS, "-o", out, "--sparsity", "50%", "--no-time"],
        "drop": ["drop", DIGITS, "-o", out, "--count", 1],
        "drop-list": ["drop", DIGITS, "--list"],
        "run": ["run", recipe, DIGITS, "-o", out, "--no-time"],
        "apply": ["apply", DIGITS, tmp_path / "plan.json", "-o", out],
        "verify": ["verify", DIGITS, small, "--plan", tmp_path / "plan.json"],
        "train": ["train", small, "-o", out, "--teacher", DIGITS, "--data", DATA, "--steps", 4, "--samples", 32],
        "evaluate": ["evaluate", DIGITS, small, "--data", MODELS / "digits_test.npz", "--labels", "label"],
        "sensitivity": ["sensitivity", DIGITS, "--data", DATA, "--samples", 16, "--ratios", "0.5", "--no-cache"],
        "diff": ["diff", DIGITS, small],
        "bench": ["bench", DIGITS, small, "--seconds", 0.1],
    }


NAMES = tuple(commands(Path(), Path(), Path()))


@pytest.mark.parametrize("name", NAMES)
def test_the_page_holds_what_json_prints(run, tmp_path, small, recipe, name):
    page = tmp_path / "page <1>.html"
    command = commands(tmp_path, small, recipe)[name]
    done = run(*command, "--json", "--report", page)
    assert done.code == 0, done.err
    parsed = Parsed(page.read_text(encoding="utf-8"))
    assert parsed.wrong == [] and parsed.json("document") == done.json
    about = parsed.json("about")
    assert about["command"].startswith(f"onnxprune {command[0]} ") and "'" in about["command"]
    for file in about["files"]:
        assert file["sha256"] == hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest()
    written = tmp_path / "out.onnx"
    assert written.exists() is (str(written) in [file["path"] for file in about["files"]])


@pytest.mark.parametrize("name", ["prune", "sparsify", "drop", "shrink", "compress-ratio", "train", "run", "apply"])
def test_layers_are_those_that_diff_prints(run, tmp_path, small, recipe, name):
    page, command = tmp_path / "page.html", commands(tmp_path, small, recipe)[name]
    assert run(*command, "--report", page).code == 0
    source = small if name == "train" else DIGITS
    expected = run("diff", source, tmp_path / "out.onnx", "--json").json
    found = Parsed(page.read_text(encoding="utf-8")).json("difference")
    assert found["layers"] == expected["layers"] and found["after"] == expected["after"]


@pytest.mark.parametrize("name", ["prune", "sensitivity", "bench", "diff", "inspect", "run", "drop-list", "evaluate"])
def test_plot_is_picture(run, tmp_path, small, recipe, name):
    pytest.importorskip("matplotlib")
    target = tmp_path / "p.png"
    done = run(*commands(tmp_path, small, recipe)[name], "--plot", target)
    assert done.code == 0, done.err
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--report", "-"], "--report needs a file"),
        (["--picture", "-"], "--picture needs a file"),
        (["--report", "{tmp}/none/p.html"], "no such folder"),
        (["--report", DIGITS, "--force"], "is the input"),
        (["--report", "{tmp}/there.html"], "there.html exists"),
        (["--report", "{tmp}/a.svg", "--picture", "{tmp}/a.svg"], "two outputs"),
        (["--report", "{tmp}/out.onnx"], "two outputs"),
        (["--picture", "{tmp}/p.jpg"], "no picture is written as"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(run, tmp_path, more, message):
    (tmp_path / "there.html").touch()
    done = run("prune", DIGITS, "-o", tmp_path / "out.onnx", *(word.format(tmp=tmp_path) for word in more))
    assert done.code == 2 and message in done.err, done.err
    assert [p.name for p in tmp_path.iterdir()] == ["there.html"]


def test_a_page_is_replaced_with_force_and_written_in_a_dry_run(run, tmp_path):
    page = tmp_path / "p.html"
    page.touch()
    assert run("diff", DIGITS, DIGITS, "--report", page).code == 2
    assert run("diff", DIGITS, DIGITS, "--report", page, "--force").code == 0 and page.stat().st_size > 1000
    assert run("prune", DIGITS, "--dry-run", "--report", tmp_path / "dry.html").code == 0
    assert (tmp_path / "dry.html").exists()


def test_a_model_on_standard_output_leaves_the_page_alone(run, tmp_path):
    done = run("prune", DIGITS, "-o", "-", "--report", tmp_path / "p.html")
    assert done.code == 0 and done.raw[:1] == b"\x08" and "pruned" in done.err
    assert "standard output" in (tmp_path / "p.html").read_text()


def test_a_step_of_a_recipe_has_no_page_of_its_own(run, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nrun = "prune"\nreport = "x.html"\n')
    done = run("run", recipe, DIGITS, "-o", tmp_path / "o.onnx")
    assert done.code == 2 and "'report' cannot be set by a step" in done.err


def test_the_command_of_a_trial_makes_its_model(run, tmp_path, monkeypatch):
    """What a click on a point shows: the search's own command, with a budget in place of the target."""
    monkeypatch.chdir(tmp_path)
    given = ("--criterion", "l2", "--data", DATA, "--samples", 48, "--recover", "bias", "--accept-damage")
    search = ("--min-sqnr=3dB", "--max-trials", 2, "--search", "params", "--force", "-o", "o.onnx")
    given = (*given, "--report", "p.html")
    done = run("prune", DIGITS, *search, *given, "--json")
    assert done.code == 0, done.err
    parsed = Parsed(Path("p.html").read_text(encoding="utf-8"))
    told = [a["data-command"] for tag, a in parsed.elements if tag == "button" and "data-command" in a]
    trials = done.json["search"]["trials"]
    assert len(told) == len(trials) == 2
    for n, (command, trial) in enumerate(zip(told, trials, strict=True), 1):
        words = command.split()
        assert words[:2] == ["onnxprune", "prune"] and not {"--min-sqnr=3dB", "p.html", "--json", "o.onnx"} & {*words}
        made = run(*words[1:], "--json")
        assert made.code == 0, made.err
        assert made.json["after"]["params"] == trial["params"] and Path(f"trial-{n}.onnx").exists()


def test_json_of_a_page_is_json(run, tmp_path):
    """No NaN in it, whatever a result holds."""
    assert run("prune", DIGITS, "--dry-run", "--no-verify", "--report", tmp_path / "p.html").code == 0
    text = (tmp_path / "p.html").read_text()
    assert "NaN" not in json.dumps(Parsed(text).json("document"), allow_nan=False)
