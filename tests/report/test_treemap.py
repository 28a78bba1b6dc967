"""A rectangle is divided by amounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.report.treemap import Tile, squarified


def test_the_example_of_the_paper() -> None:
    """Section 3.1: areas 6, 6, 4, 3, 2, 2, 1 in a room of 6 x 4."""
    tiles = squarified([6, 6, 4, 3, 2, 2, 1], Tile(0, 0, 6, 4))
    assert [(round(t.width, 3), round(t.height, 3)) for t in tiles[:4]] == [
        (3, 2),
        (3, 2),
        (1.714, 2.333),
        (1.286, 2.333),
    ]
    assert (tiles[0].x, tiles[0].y, tiles[1].y, tiles[2].x) == (0, 0, 2, 3)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40).map(lambda x: sorted(x, reverse=True)))
def test_areas_are_in_proportion_and_stay_in_the_room(amounts: list[float]) -> None:
    tiles = squarified(amounts, Tile(0, 0, 100, 50))
    areas = [t.width * t.height for t in tiles]
    assert areas == pytest.approx([a * 5000 / sum(amounts) for a in amounts], rel=1e-6, abs=1e-6)
    assert all(t.x >= 0 and t.y >= 0 and t.x + t.width < 100.001 and t.y + t.height < 50.001 for t in tiles)


def test_no_amounts_no_tiles() -> None:
    assert squarified([], Tile(0, 0, 1, 1)) == []
