"""`onnxprune quantize`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cli import main
from tests.graphs.quantized import quantizable


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    proto, data = quantizable("products")
    onnx.save(proto, "model.onnx")
    np.savez("data.npz", x=data)
    return tmp_path


FEW = ["--data", "data.npz", "--no-time"]


def test_a_model_in_whole_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "model.onnx", "-o", "q.onnx", *FEW]) == 0
    told = capsys.readouterr().out
    assert "model.onnx -> q.onnx" in told and "layers   2 of 2 quantised, with quantisers" in told
    onnx.checker.check_model("q.onnx")
    assert "QuantizeLinear" in {node.op_type for node in onnx.load("q.onnx").graph.node}


def test_four_bits_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--form", "blocks", "--bits", "4", "--block-size", "16", "--json"]
    assert main(["quantize", "model.onnx", "-o", "q.onnx", *FEW, *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["form"] == "blocks" and told["outputs"]["sqnr"] > told["nearest"]["sqnr"]
    nodes = [node for node in onnx.load("q.onnx").graph.node if node.op_type == "MatMulNBits"]
    assert {a.name: a.i for a in nodes[0].attribute} == {"K": 16, "N": 64, "bits": 4, "block_size": 16}


def test_a_file_within_a_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And what training does with it."""
    assert main(["quantize", "model.onnx", "-o", "q.onnx", *FEW, "--size", "55%", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"]["after"] == Path("q.onnx").stat().st_size <= 0.55 * Path("model.onnx").stat().st_size
    assert told["share"] in [tried["share"] for tried in told["tried"]]
    words = ["--steps", "5", "--rate", "1e-3", "--learn-scales"]
    teacher = ["--data", "data.npz", "--teacher", "model.onnx"]
    assert main(["train", "q.onnx", "-o", "t.onnx", *teacher, *words]) == 0
    assert "held out" in capsys.readouterr().out
    operators = [[node.op_type for node in onnx.load(name).graph.node] for name in ("q.onnx", "t.onnx")]
    assert operators[0] == operators[1]


def test_without_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "model.onnx", "-o", "q.onnx", "--no-time"]) == 0
    told = capsys.readouterr()
    assert "activations quantised by their own ranges" in told.out and "--data FILE" in told.err


def test_the_speed_is_said(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.runtime.paired_timing.SESSIONS", 2)
    assert main(["quantize", "model.onnx", "-o", "q.onnx", "--data", "data.npz"]) == 0
    assert "speed" in capsys.readouterr().out


def test_a_step_of_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("steps.toml").write_text(
        '[[step]]\nrun = "prune"\nratio = 0.5\n\n[[step]]\nrun = "quantize"\nform = "blocks"\nblock-size = 16\n'
    )
    assert main(["run", "steps.toml", "model.onnx", "-o", "q.onnx", *FEW, "--json"]) == 0
    assert [step["verb"] for step in json.loads(capsys.readouterr().out)["steps"]][-2:] == ["prune", "quantize"]
    assert "MatMulNBits" in {node.op_type for node in onnx.load("q.onnx").graph.node}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--form", "qdq"], 2, "needs inputs that tell the ranges"),
        (["--bits", "8"], 2, "nothing is stored in blocks"),
        (["--form", "blocks", "--block-size", "20"], 2, "no size of a block"),
        (["--min-sqnr", "20"], 2, "measured on inputs"),
        (["--max-drop", "1%"], 2, "needs a measure"),
        (["--keep", "nothing"], 2, "no layer is called 'nothing'"),
        ([*FEW, "--form", "blocks", "--min-sqnr", "300"], 1, "not good enough"),
        (["--keep", "*"], 1, "nothing is quantised"),
    ],
)
def test_what_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    """With a reason, and nothing is written."""
    words = words if "--no-time" in words else [*words, "--no-time"]
    assert main(["quantize", "model.onnx", "-o", "q.onnx", *words]) == code
    assert message in capsys.readouterr().err
    assert not Path("q.onnx").exists()


def test_an_existing_file_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.onnx").write_text("mine")
    assert main(["quantize", "model.onnx", "-o", "q.onnx", *FEW]) == 2
    assert Path("q.onnx").read_text() == "mine"
    assert main(["quantize", "model.onnx", "-o", "model.onnx", "--force", *FEW]) == 2
