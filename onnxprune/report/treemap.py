"""Rectangles whose areas are amounts, as square as they can be.

Source: M. Bruls, K. Huizing, J. J. van Wijk, Squarified treemaps, 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A rectangle.

    Attributes:
        x: its left edge.
        y: its upper edge.
        width: to the right.
        height: downwards.
    """

    x: float
    y: float
    width: float
    height: float


def squarified(amounts: Sequence[float], room: Tile) -> list[Tile]:
    """Divide a rectangle.

    Args:
        amounts: positive numbers, the largest first.
        room: what is divided.

    Returns:
        A rectangle for each amount; their areas are in proportion to the amounts and fill the room.
    """
    scale = room.width * room.height / sum(amounts) if amounts else 0.0
    areas, tiles = [amount * scale for amount in amounts], list[Tile]()
    while areas:
        side = min(room.width, room.height)
        row = 1
        while row < len(areas) and _worst(areas[: row + 1], side) <= _worst(areas[:row], side):
            row += 1
        tiles += _row(areas[:row], room)
        room, areas = _rest(room, sum(areas[:row])), areas[row:]
    return tiles


def _worst(areas: Sequence[float], side: float) -> float:
    """The largest ratio of sides in a row of rectangles along a side (section 3 of the paper)."""
    total = sum(areas)
    return max(side**2 * max(areas) / total**2, total**2 / (side**2 * min(areas)))


def _row(areas: Sequence[float], room: Tile) -> list[Tile]:
    """Lay rectangles side by side along the shorter side of the room."""
    depth, tiles, at = sum(areas) / min(room.width, room.height), list[Tile](), 0.0
    for area in areas:
        length = area / depth
        if room.width >= room.height:
            tiles.append(Tile(room.x, room.y + at, depth, length))
        else:
            tiles.append(Tile(room.x + at, room.y, length, depth))
        at += length
    return tiles


def _rest(room: Tile, area: float) -> Tile:
    """What a row leaves of the room."""
    depth = area / min(room.width, room.height)
    if room.width >= room.height:
        return Tile(room.x + depth, room.y, max(room.width - depth, 1e-12), room.height)
    return Tile(room.x, room.y + depth, room.width, max(room.height - depth, 1e-12))
