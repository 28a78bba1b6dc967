"""How often Python looks for circles of dead objects."""

from __future__ import annotations

import gc

import pytest

from onnxprune.system.garbage import OBJECTS, rare_collections


def test_it_looks_less_often_and_afterwards_as_before() -> None:
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold() == (OBJECTS, *before[1:])
    assert gc.get_threshold() == before
    with pytest.raises(ZeroDivisionError), rare_collections():
        raise ZeroDivisionError
    assert gc.get_threshold() == before, "after an error, too"
