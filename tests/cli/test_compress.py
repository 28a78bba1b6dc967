"""`onnxprune compress`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxprune.cli import main

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "preact_resnet.onnx", "model.onnx")
    return tmp_path


def compress(*words: str) -> int:
    return main(["compress", "model.onnx", "--no-time", *words])


def test_it_writes_a_smaller_file_and_tells_how(workplace, capsys):
    assert compress("-o", "s.onnx", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["after"]["file"] == Path("s.onnx").stat().st_size < Path("model.onnx").stat().st_size
    assert told["proof"]["ok"] and told["after"]["nodes"] < told["before"]["nodes"]
    assert {fold["kind"] for fold in told["folded"]} == {"constant"}
    assert compress("-o", "t.onnx") == 0
    out = capsys.readouterr().out
    assert "\nexact    constants and products folded: 7 nodes" in out and "equal to the original's outputs" in out
    assert Path("s.onnx").read_bytes() == Path("t.onnx").read_bytes()


def test_time_is_measured_and_said(workplace, capsys):
    assert main(["compress", "model.onnx", "-o", "s.onnx", "--threads", "1"]) == 0
    assert "ONNX Runtime CPU, 1 thread\n" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(workplace):
    assert compress("--dry-run") == 0
    assert [p.name for p in workplace.iterdir()] == ["model.onnx"]


def test_products_and_their_plan(workplace, capsys):
    shutil.copy(MODELS / "digits.onnx", "digits.onnx")
    words = ["compress", "digits.onnx", "--no-time", "--params", "60%", "--round-to", "4", "--allow-slower"]
    assert main([*words, "-o", "s.onnx", "--plan-out", "p.json", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proof"]["ok"] and told["budgets"][0]["met"]
    assert told["after"]["params"] <= 0.6 * told["before"]["params"]
    assert told["after"]["file"] == Path("s.onnx").stat().st_size
    assert {step["kind"] for step in json.loads(Path("p.json").read_text())["steps"]} == {"factorise"}
    assert main(["apply", "digits.onnx", "p.json", "-o", "again.onnx"]) == 0
    assert "products" in capsys.readouterr().out
    assert Path("again.onnx").stat().st_size == Path("s.onnx").stat().st_size
    assert main([*words, "-o", "t.onnx", "--exact"]) == 0
    out = capsys.readouterr().out
    assert "budget   params: " in out and "equal to the original with projected weights" in out


def test_a_budget_that_is_missed_is_said(workplace, capsys):
    shutil.copy(MODELS / "digits.onnx", "digits.onnx")
    assert main(["compress", "digits.onnx", "-o", "s.onnx", "--no-time", "--params", "1%", "--allow-slower"]) == 1
    assert "was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "no output"),
        (["-o", "model.onnx"], 2, "is the input"),
        (["-o", "-", "--json"], 2, "cannot both go to standard output"),
        (["-o", "no/such/folder.onnx"], 2, "no such folder"),
        (["-o", "s.onnx", "--threads", "1"], 2, "--threads has no effect"),
        (["-o", "s.onnx", "--samples", "5"], 2, "--samples has no effect"),
        (["-o", "s.onnx", "--data", "none.npz"], 2, "none.npz"),
        (["-o", "s.onnx", "--sizes", "zzz=3"], 2, "zzz"),
        (["-o", "s.onnx", "--round-to", "4"], 2, "--round-to has no effect"),
        (["-o", "s.onnx", "--plan-out", "p.json"], 2, "--plan-out has no effect"),
        (["-o", "s.onnx", "--ratio", "1.5"], 2, "--ratio: 1.5 is not"),
        (["-o", "s.onnx", "--ratio", "0.5", "--only", "zzz"], 2, "no weight or node matches"),
        (["-o", "s.onnx", "--ratio", "0.5", "--method", "whitened"], 2, "give inputs with --data"),
        (["-o", "s.onnx", "--ratio", "0.5", "--exact", "--plan-out", "p.json"], 2, "--plan-out cannot be written"),
        (["-o", "s.onnx", "--params", "much"], 2, "not an amount"),
        (["-o", "s.onnx", "--rank", "conv.weight=0"], 2, "--rank"),
    ],
)
def test_bad_requests_end_with_one_error_and_write_nothing(workplace, capsys, words, code, says):
    assert compress(*words) == code
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
    assert [p.name for p in workplace.iterdir()] == ["model.onnx"]


def test_a_damaged_model_is_refused(workplace, capsys):
    Path("model.onnx").write_bytes(Path("model.onnx").read_bytes()[:5000])
    assert compress("-o", "s.onnx") in (2, 3)
    assert "Traceback" not in capsys.readouterr().err and not Path("s.onnx").exists()


def test_killed_at_any_moment_it_leaves_no_half_of_a_file(workplace):
    """The output is absent or complete, and so is the plan; the input stays."""
    shutil.copy(MODELS / "digits.onnx", "digits.onnx")
    before = Path("digits.onnx").read_bytes()
    words = [
        "compress",
        "digits.onnx",
        "-o",
        "s.onnx",
        "--plan-out",
        "p.json",
        "--ratio",
        "50%",
        "--no-time",
        "--force",
    ]
    command = [sys.executable, "-m", "onnxprune", *words, "--allow-slower"]
    environment = os.environ | {"PYTHONPATH": str(MODELS.parent)}
    start = time.perf_counter()
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    whole, plan, length = Path("s.onnx").read_bytes(), Path("p.json").read_bytes(), time.perf_counter() - start
    for share in (0.5, 0.8, 0.95, 1.0):
        for path in (Path("s.onnx"), Path("p.json")):
            path.unlink(missing_ok=True)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(share * length)
        process.kill()
        process.wait()
        assert not Path("s.onnx").exists() or Path("s.onnx").read_bytes() == whole
        assert not Path("p.json").exists() or Path("p.json").read_bytes() == plan
        assert Path("digits.onnx").read_bytes() == before
