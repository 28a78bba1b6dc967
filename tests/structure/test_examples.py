"""Every public name shows how it is used, and the examples do what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from pathlib import Path

import pytest

import onnxprune
from onnxprune import criteria
from onnxprune.tracing.rules import registry
from tests.structure.tree import MODULES

ROOT = Path(__file__).parents[2]
# Found by their text: importing all modules takes longer than all examples.
WITH_EXAMPLES = [name for name, path in MODULES.items() if "    >>> " in path.read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the models, in which what an example registers or writes is gone afterwards."""
    (tmp_path / "models").mkdir()
    for name in ("digits.onnx", "digits_calibration.npz", "digits_test.npz"):
        shutil.copy(ROOT / "models" / name, tmp_path / "models" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_RULES", {key: list(rules) for key, rules in registry._RULES.items()})
    monkeypatch.setattr(criteria, "KNOWN", dict(criteria.KNOWN))


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_do_what_they_say(module: str) -> None:
    if module.startswith("onnxprune.torch."):
        pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("name", onnxprune.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    value = getattr(onnxprune, name)
    examples = doctest.DocTestParser().get_examples(value.__doc__ or "")
    assert examples, f"{name}: no example"
    if not inspect.isclass(value):
        assert any(f"onnxprune.{name}(" in example.source for example in examples), f"{name} is not called"
