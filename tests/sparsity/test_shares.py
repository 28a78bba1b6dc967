"""Zeros shared out over weights by their damage."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.sparsity.shares import shares_by_damage


def test_the_least_damage_of_all_goes() -> None:
    """Against sorting all elements of all weights together."""
    rng = np.random.default_rng(0)
    damage = {name: rng.random((8, 25)) * scale for name, scale in (("a", 1e-4), ("b", 1e-2), ("c", 1.0))}
    found = shares_by_damage(damage, 0.5, 0.0)
    limit = np.sort(np.concatenate([d.ravel() for d in damage.values()]))[300]
    assert {n: round(s * 200) for n, s in found.items()} == {n: int((d < limit).sum()) for n, d in damage.items()}


def test_every_weight_keeps_its_floor() -> None:
    damage = {"cheap": np.full((10, 10), 1e-9), "dear": np.linspace(0.1, 1, 100)}
    found = shares_by_damage(damage, 0.6, 0.25)
    assert found["cheap"] == pytest.approx(0.75) and found["dear"] == pytest.approx(0.45, abs=0.01)


def test_never_more_than_asked_for() -> None:
    """Equal damage cannot be split: none of it goes."""
    assert shares_by_damage({"a": np.full(10, 0.5)}, 0.5, 0.0) == {"a": 0.0}


def test_elements_without_damage_go_first() -> None:
    assert shares_by_damage({"a": np.array([0, 0, 0, 1.0])}, 0.75, 0.0) == {"a": 0.75}
