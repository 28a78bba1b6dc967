"""Clocks and models that are timed."""

from __future__ import annotations

from pathlib import Path

from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from tests.cli.conftest import run  # noqa: F401 - a fixture

MODELS = Path(__file__).parents[2] / "models"
ONE = Place(Setting(threads=1))
DIGITS = str(MODELS / "digits.onnx")
