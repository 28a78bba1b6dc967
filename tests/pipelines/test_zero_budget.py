"""Budgets on what is not zero, and on the bytes of the file, are met from below, and by little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import file_size, load, save
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")


def nonzeros(model: Any) -> int:
    loaded = load(model)
    return sum(int(np.count_nonzero(loaded.array(name))) for name in loaded.initializers)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pattern": "block 2x2"},
        {"per": "layer"},
        {"per": "global"},
        {"method": "random"},
        {"method": "wanda", "data": DATA},
    ],
    ids=str,
)
@pytest.mark.parametrize("params", ["20%", "60k"])
def test_non_zero_parameters(params: str, options: dict[str, Any]) -> None:
    result = onnxprune.sparsify(DIGITS, params=params, **options)
    limit = 60_000 if params == "60k" else 0.2 * nonzeros(DIGITS)
    # A step of the share moves one element of every output, or a block of four of every row of blocks.
    assert 0.985 * limit <= nonzeros(result.model) <= limit
    assert result.report.verdict.ok


@pytest.mark.parametrize("storage", ["sparse", "auto"])
@pytest.mark.parametrize("size", ["40%", "100kB"])
def test_bytes_of_the_file(tmp_path: Path, size: str, storage: str) -> None:
    result = onnxprune.sparsify(DIGITS, size=size, storage=storage)
    save(load(result.model), tmp_path / "o.onnx")
    whole = Path(DIGITS).stat().st_size
    limit = 100_000 if size == "100kB" else 0.4 * whole
    written = (tmp_path / "o.onnx").stat().st_size
    assert written == file_size(load(str(tmp_path / "o.onnx")))
    assert 0.97 * limit <= written <= limit


def test_both_at_once_and_shares_of_single_weights() -> None:
    result = onnxprune.sparsify(DIGITS, params="30%", size="90%", storage="sparse", ratios={"conv_1.weight": 0.25})
    zeros = {w.name: w.zeros / w.elements for w in result.report.weights}
    assert zeros["conv_1.weight"] == 0.25 and zeros["fc.weight"] > 0.7
    assert nonzeros(DIGITS) * 0.29 < nonzeros(onnxprune.sparsify(DIGITS, params="30%").model) <= nonzeros(DIGITS) * 0.3


def test_a_budget_that_holds_already_changes_nothing() -> None:
    result = onnxprune.sparsify(DIGITS, params="100%")
    assert sum(w.zeros - w.before for w in result.report.weights) == 0


def test_budgets_that_cannot_be_met() -> None:
    with pytest.raises(GoalMissed, match=r"--params 0.1% cannot be met by zeros: at least"):
        onnxprune.sparsify(DIGITS, params="0.1%")
    with pytest.raises(GoalMissed, match="--size"):
        onnxprune.sparsify(DIGITS, size="1kB", storage="sparse")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"params": "many"}, "'many' is not an amount"),
        ({"params": 0.5}, "is not an amount"),
        ({"size": "50%"}, "add --storage sparse"),
        ({"params": "50%", "sparsity": 0.5}, "both say how many"),
        ({"params": "50%", "pattern": "2:4"}, "2:4 says how many zeros there are"),
        ({"params": "50%", "method": "threshold:0.1"}, "says how many zeros there are"),
    ],
)
def test_budgets_that_are_wrong(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        onnxprune.sparsify(DIGITS, **options)


def test_on_the_command_line(run: Run, tmp_path: Path) -> None:
    ran = run("sparsify", DIGITS, "-o", tmp_path / "o.onnx", "--params", "25%", "--json", "--no-time")
    assert ran.code == 0, ran.err
    assert ran.json["options"]["params"] == "25%" and ran.json["options"]["sparsity"] is None
    assert ran.json["after"]["nonzeros"] <= 0.25 * ran.json["before"]["nonzeros"]
    assert nonzeros(str(tmp_path / "o.onnx")) <= 0.25 * nonzeros(DIGITS)
    ran = run("sparsify", DIGITS, "-o", tmp_path / "p.onnx", "--params", "0.1%", "--no-time")
    assert ran.code == 1 and "cannot be met" in ran.err and not (tmp_path / "p.onnx").exists()
