"""Choosing in Python: any source of a model, the same kind back, and options by name."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.model import file_size, load
from onnxprune.pipelines import auto_search as auto
from onnxprune.pipelines.auto_recipes import Recipe, VerbStep
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from tests.cli.conftest import DIGITS, MODELS

ONE = Place(Setting(threads=1))
TEST = str(MODELS / "digits_test.npz")


@pytest.fixture(autouse=True)
def _one_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    prune = Recipe("prune", (VerbStep("prune", {"criterion": "l2"}),), dial=0)
    monkeypatch.setattr(auto, "turned_recipes", lambda cost, facts: [prune])
    monkeypatch.setattr("onnxprune.pipelines.auto_rungs.TRAINING", ())


def test_a_proto_gives_a_proto_and_is_not_changed(tmp_path: Path) -> None:
    proto = onnx.load(DIGITS)
    before = proto.SerializeToString(deterministic=True)
    result = onnxprune.auto(proto, size="60%", time=60, folder=tmp_path, place=ONE)
    assert isinstance(result.model, onnx.ModelProto) and proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result.model, full_check=True)
    assert file_size(load(result.model)) <= 0.6 * file_size(load(DIGITS))
    assert result.recipe == result.report.chosen.steps and list(tmp_path.glob("0-*.onnx"))


def test_a_front_is_made_of_models(tmp_path: Path) -> None:
    result = onnxprune.auto(
        DIGITS, TEST, labels="label", max_drop="2%", smallest="params", samples=64, time=60, place=ONE
    )
    assert [point.shares["params"] for point in result.front] == sorted(
        point.shares["params"] for point in result.front
    )
    for point in result.front:
        assert file_size(load(point.model)) / file_size(load(DIGITS)) == pytest.approx(point.shares["size"])
    assert result.report.goal.metric == "value"
    assert result.report.chosen.values["value"] >= 0.98 * result.report.whole["value"]


def test_a_measure_of_ones_own() -> None:
    result = onnxprune.auto(DIGITS, macs="70%", evaluate=lambda path: -float(load(path).nbytes), time=60, place=ONE)
    assert result.report.chosen.values == {"value": -load(result.model).nbytes}


def test_names_that_are_wrong() -> None:
    with pytest.raises(TypeError, match="did you mean 'min_sqnr'"):
        onnxprune.auto(DIGITS, min_snr=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="nothing says what is to be reached"):
        onnxprune.auto(DIGITS)
