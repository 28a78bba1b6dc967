"""Documented paths that have moved still lead to what they named, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("onnxprune.bench", "onnxprune.runtime.bench", "Place bench"),
        ("onnxprune.search", "onnxprune.pipelines.search", "search"),
        ("onnxprune.rules.site", "onnxprune.tracing", "Copies Site=NodeView through"),
    ],
)
def test_a_moved_path_hands_over(old: str, new: str, names: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        module = importlib.import_module(old)
    target = importlib.import_module(new)
    pairs = {old: new or old for old, _, new in (name.partition("=") for name in names.split())}
    assert set(module.__all__) == set(pairs)
    assert all(getattr(module, old) is getattr(target, new) for old, new in pairs.items())
