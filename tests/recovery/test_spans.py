"""Blocks one behind the other, and what stands for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxprune.recovery.spans import StandIn, spans_of


def block(entry: str, exit: str) -> Any:
    return SimpleNamespace(entry=entry, exit=exit)


def test_blocks_that_meet_are_one_span() -> None:
    blocks = [block("a", "b"), block("b", "c"), block("d", "e"), block("e", "f"), block("f", "g")]
    found = spans_of(blocks)
    assert [(s.entry, s.exit, len(s.blocks)) for s in found] == [("a", "c", 2), ("d", "g", 3)]
    assert spans_of([]) == []


@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 3, 4)), (2, (2, 4, 3))])
def test_a_matrix_stands_along_its_axis(axis: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, factor, shift = (
        rng.standard_normal(shape).astype(np.float32),
        rng.standard_normal((3, 3)),
        rng.standard_normal(3),
    )
    y = StandIn(("b",), "y", "map", factor=factor, shift=shift, axis=axis).applied(x)
    wanted = np.einsum("nct,cd->ndt" if axis == 1 else "ntc,cd->ntd", x, factor)
    wanted += shift[:, None] if axis == 1 else shift
    np.testing.assert_allclose(y, wanted, rtol=1e-5)
    assert y.dtype == np.float32


def test_a_factor_per_channel_and_nothing() -> None:
    x = np.ones((2, 3), np.float32)
    scaled = StandIn(("b",), "y", "scale", factor=np.array([1.0, 2.0, 3.0]), shift=np.array([0.0, 0.0, 1.0]), axis=1)
    assert scaled.applied(x).tolist() == [[1, 2, 4]] * 2
    assert StandIn(("b",), "y").applied(x) is x
