"""`shrink`: what is dead goes; what is said and written, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import Run
from tests.pipelines.test_shrink_source import dead


@pytest.fixture
def model(tmp_path: Path) -> str:
    onnx.save(dead(), tmp_path / "model.onnx")
    return str(tmp_path / "model.onnx")


def test_a_smaller_model_and_its_account(run: Run, model: str, tmp_path: Path) -> None:
    done = run("shrink", model, "-o", tmp_path / "small.onnx", "--plan-out", tmp_path / "plan.json")
    assert done.code == 0 and "zero" in done.out and "equal to" in done.out
    sizes = {t.name: tuple(t.dims) for t in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert sizes["w1"] == (4, 5) and sizes["w2"] == (5, 3)
    assert json.loads((tmp_path / "plan.json").read_text())


def test_json_and_a_dry_run(run: Run, model: str, tmp_path: Path) -> None:
    done = run("shrink", model, "--dry-run", "--json")
    assert done.code == 0 and sum(part["units"] for part in done.json["removed"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tolerance", "1"), "--tolerance"),
        (("--input-range", "x=0:1", "--input-range", "x=0:2"), "an input has two ranges"),
        (("--input-range", "nothing=0:1"), "nothing"),
    ],
)
def test_what_cannot_be_is_refused(run: Run, model: str, tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    done = run("shrink", model, "-o", tmp_path / "small.onnx", *options)
    assert done.code == 2 and says in done.err and not (tmp_path / "small.onnx").exists()
