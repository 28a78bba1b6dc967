"""A group: weight axes that shrink together, in units that go whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.typing import Array


@dataclass(frozen=True)
class Member:
    """An axis of a weight that shrinks with a group.

    Attributes:
        tensor: name of the weight in the graph.
        key: the same, with the use appended where the weight is duplicated per use.
        axis: the axis.
        size: its length.
        positions: how many of its positions belong to the group.
    """

    tensor: str
    key: str
    axis: int
    size: int
    positions: int


@dataclass(frozen=True)
class Group:
    """What must shrink together.

    Attributes:
        name: unique; the first weight that the group cuts, or its node where the weight has no name of its own.
        kind: "channel", "head" or "head dim".
        cells: class ids; one class of a single cell is a unit. Of several cells, a unit takes the same share.
        members: the weight axes that it cuts.
        params: weight elements that any unit of the group holds.
        find_reason: finds `approximate`.
        count_macs: counts `macs`.
        io: axes of graph inputs and outputs that shrink with it: (tensor, axis).
    """

    name: str
    kind: str
    cells: tuple[Array, ...]
    members: tuple[Member, ...]
    params: int
    find_reason: Callable[[], str] = field(repr=False, compare=False)
    count_macs: Callable[[], int] = field(repr=False, compare=False)
    io: tuple[tuple[str, int], ...] = ()

    @property
    def approximate(self) -> str:
        """Why the smaller model is not the original with the weights of removed units set to zero; empty where it is.

        Found when it is asked for, as `macs` are: a proof asks for neither.
        """
        return self.find_reason()

    @property
    def exact(self) -> bool:
        """Whether the smaller model equals the original with the weights of removed units set to zero."""
        return not self.approximate

    @property
    def macs(self) -> int:
        """Multiply-accumulates that depend on the group, for one sample; counted when they are asked for."""
        return self.count_macs()

    @property
    def units(self) -> int:
        """How many units the group has."""
        return math.gcd(*(len(c) for c in self.cells))

    @cached_property
    def classes(self) -> Array:
        """All classes, cell by cell."""
        return np.concatenate(self.cells)
