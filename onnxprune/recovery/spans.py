"""Blocks that are taken out one behind the other, and what stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.model.blocks import GraphBlock
from onnxprune.typing import Array

FOLD, MAP, SCALE, NOTHING = "fold", "map", "scale", "none"


@dataclass(frozen=True, eq=False)
class StandIn:
    """What stands for a block, or for several, one behind the other.

    Attributes:
        blocks: their names.
        exit: the tensor that left the last of them.
        form: "fold", "map", "scale" or "none", or "fold+map" and "fold+scale".
        params: numbers that were added.
        factor: what is multiplied with what enters: [channels, channels], or one number per channel; None for nothing.
        shift: what is added then, one number per channel.
        axis: the axis of the channels.
    """

    blocks: tuple[str, ...]
    exit: str
    form: str = NOTHING
    params: int = 0
    factor: Array | None = field(default=None, repr=False)
    shift: Array | None = field(default=None, repr=False)
    axis: int = 0

    def applied(self, x: Array) -> Array:
        """What leaves, from what enters, by the formula."""
        if self.factor is None or self.shift is None:
            return x
        rows = np.moveaxis(x, self.axis, -1).astype(np.float64)
        made = (rows @ self.factor if self.factor.ndim == 2 else rows * self.factor) + self.shift
        return np.ascontiguousarray(np.moveaxis(made, -1, self.axis).astype(x.dtype))


@dataclass(frozen=True, eq=False)
class Span:
    """Blocks one behind the other.

    Attributes:
        blocks: the blocks.
    """

    blocks: tuple[GraphBlock, ...]

    @property
    def entry(self) -> str:
        """The tensor that enters the first."""
        return self.blocks[0].entry

    @property
    def exit(self) -> str:
        """The tensor that leaves the last."""
        return self.blocks[-1].exit


def spans_of(blocks: Sequence[GraphBlock]) -> list[Span]:
    """Join blocks that are taken out one behind the other.

    Args:
        blocks: in graph order.

    Returns:
        The spans, in graph order.
    """
    found: list[Span] = []
    for block in blocks:
        if found and found[-1].exit == block.entry:
            found[-1] = Span((*found[-1].blocks, block))
        else:
            found.append(Span((block,)))
    return found
