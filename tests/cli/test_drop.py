"""`onnxprune drop`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from onnxprune.cli import main

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "digits.onnx", "model.onnx")
    shutil.copy(MODELS / "vit.onnx", "vit.onnx")
    shutil.copy(MODELS / "digits_calibration.npz", "data.npz")
    return tmp_path


def test_the_list_shows_blocks_and_their_branches(workplace, capsys):
    assert main(["drop", "vit.onnx", "--list"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out[1:4]] == [
        ["block", "block"],
        ["/block/Add_output_0", "branch"],
        ["block.mlp", "branch"],
    ]
    assert main(["drop", "vit.onnx", "--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "onnxprune-blocks" and len(told["blocks"]) == 6


def test_it_writes_a_model_and_says_what_was_proven(workplace, capsys):
    assert main(["drop", "model.onnx", "-o", "s.onnx", "--count", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proof"]["ok"] and told["bytes"]["after"] == Path("s.onnx").stat().st_size
    assert [b["name"] for b in told["blocks"] if b["dropped"]] == ["residual"]
    stored = {t.name for t in onnx.load("s.onnx").graph.initializer}
    assert not any(name.startswith("residual") for name in stored)


def test_a_dry_run_writes_nothing(workplace, capsys):
    assert main(["drop", "model.onnx", "--count", "1", "--dry-run", "--plan-out", "p.json"]) == 0
    assert "dropped  1 block of 1: residual" in capsys.readouterr().out
    assert sorted(p.name for p in workplace.iterdir()) == ["data.npz", "model.onnx", "vit.onnx"]


def test_a_plan_is_applied(workplace, capsys):
    assert main(["drop", "model.onnx", "-o", "s.onnx", "--count", "1", "--plan-out", "p.json"]) == 0
    assert main(["apply", "model.onnx", "p.json", "-o", "again.onnx"]) == 0
    assert Path("again.onnx").read_bytes() == Path("s.onnx").read_bytes()
    assert main(["verify", "model.onnx", "again.onnx", "--plan", "p.json"]) == 0
    assert main(["apply", "model.onnx", "p.json", "-o", "fitted.onnx", "--data", "data.npz"]) == 0
    assert Path("fitted.onnx").read_bytes() != Path("s.onnx").read_bytes()


def test_it_is_a_step_of_a_recipe(workplace, capsys):
    Path("steps.toml").write_text('[[step]]\nrun = "drop"\ncount = 1\n\n[[step]]\nrun = "prune"\nratio = 0.25\n')
    assert main(["run", "steps.toml", "model.onnx", "-o", "s.onnx", "--no-time", "--json"]) == 0
    assert [step["verb"] for step in json.loads(capsys.readouterr().out)["steps"]][-2:] == ["drop", "prune"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-o", "s.onnx"], 2, "nothing says what to drop"),
        (["--count", "1"], 2, "no output"),
        (["-o", "s.onnx", "--count", "2"], 2, "2 blocks are to go, and 1 may"),
        (["-o", "s.onnx", "--blocks", "layer*"], 2, "no block is called 'layer*'"),
        (["-o", "s.onnx", "--count", "1", "--ratio", "0.5"], 2, "several options"),
        (["-o", "s.onnx", "--count", "1", "--criterion", "divergence"], 2, "looks at what the model computes"),
        (["-o", "s.onnx", "--params", "1%"], 1, "params: "),
        (["-o", "s.onnx", "--count", "1", "--keep", "*"], 1, "no block may go"),
        (["-o", "model.onnx", "--count", "1"], 2, "model.onnx"),
    ],
)
def test_errors(workplace, capsys, words, code, message):
    assert main(["drop", "model.onnx", *words]) == code
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
