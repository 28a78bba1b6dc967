"""A net that grows by random steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.graphs.net import Net

Draw = Callable[[st.SearchStrategy[Any]], Any]
# Norms of random values that hardly differ amplify float noise beyond what a proof in float32 can tell from an error.
EPSILON = 1e-2
OPSETS = (11, 13, 17, 18, 21, 23)


# Ways in which a graph computes a weight from others.
COMPUTED = ("transposed", "flat", "joined", "part", "low-rank", "scaled", "gathered", "constant", "masked")
# Those whose numbers depend on each other.
COMPUTED += ("normed", "standardised", "softmax", "positive")


class Grower:
    """A net that grows by random steps; sizes of tensors are known without running anything."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.net = Net(draw(st.sampled_from(OPSETS)), seed=draw(st.integers(0, 1000)))
        self.batch: int | str = draw(st.sampled_from([2, "batch"]))
        self.shared: dict[tuple[int, ...], str] = {}
        self.ones: dict[int, str] = {}

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def chance(self) -> bool:
        return bool(self.draw(st.booleans()))

    def width(self, low: int = 2, high: int = 13) -> int:
        return int(self.draw(st.integers(low, high)))

    def scalar(self, value: float) -> str:
        return self.net.const(np.float32(value))

    def reduce_mean(self, x: str, axes: list[int], count: int) -> str:
        """A mean over `count` positions, by that name or written as a sum."""
        if self.chance():
            return self.net.listed("ReduceMean", x, axes, since=18)
        if self.chance():
            x = self.net.add("Mul", x, self.scalar(1 / count))
            return self.net.listed("ReduceSum", x, axes, since=13)
        return self.net.add("Div", self.net.listed("ReduceSum", x, axes, since=13), self.scalar(count))

    def shape_part(self, x: str, axis: int) -> str:
        return self.net.add("Gather", self.net.add("Shape", x), self.net.ints(axis))

    def unit_scale(self, size: int) -> str:
        """All-ones: one initializer for all users, as exporters merge them."""
        if size not in self.ones:
            self.ones[size] = self.net.const(np.ones(size, np.float32), f"ones_{size}")
        return self.ones[size]

    def reshape(self, x: str, *target: int) -> str:
        return self.net.add("Reshape", x, self.net.ints(*target))

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        net, count = self.net, len(sizes)
        if net.opset < 13:
            return net.add("Split", x, outputs=count, axis=axis, split=sizes)
        if net.opset >= 18 and len(set(sizes)) == 1 and self.chance():
            return net.add("Split", x, outputs=count, axis=axis, num_outputs=count)
        return net.add("Split", x, net.ints(*sizes), outputs=count, axis=axis)

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        ints = self.net.ints
        return self.net.add("Slice", x, ints(start), ints(end), ints(axis), ints(step))
