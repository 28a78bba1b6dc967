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
        ("onnxprune.rules.site", "onnxprune.tracing", "Copies Site through"),
    ],
)
def test_a_moved_path_hands_over(old: str, new: str, names: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        module = importlib.import_module(old)
    target = importlib.import_module(new)
    assert set(module.__all__) == set(names.split())
    assert all(getattr(module, name) is getattr(target, name) for name in names.split())
