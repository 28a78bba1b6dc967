"""What makes a model sparser while it trains: masks that are chosen again, and penalties that draw weights to zero.

A mask is loose at first: the model computes with zeros, while the weights behind them keep their values and go on
learning from the gradient that they would have (Guo et al., "Dynamic Network Surgery", 2016, eq. 4), so that what went
may return. At the end the masks are held: what is masked is zero, and stays so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from onnxprune.typing import Array

# Weight -> boolean array, false where an element is zero.
Masks = Mapping[str, Array]


class Thinning(ABC):
    """A course from no zeros, or few, to the wanted ones.

    Attributes:
        until: steps after which the masks are held.
        CHANGING: names of the attributes that change from step to step: arrays, numbers, or mappings of these.
    """

    until: int
    CHANGING: tuple[str, ...] = ()

    def state(self) -> dict[str, Array]:
        """All that changes from step to step, for a checkpoint."""
        found = dict[str, Array]()
        for name in self.CHANGING:
            value = getattr(self, name)
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            found |= {f"{name}\0{key}": np.array(part) for key, part in parts}
        return found

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue from what `state` returned."""
        for name in self.CHANGING:
            own = {key.partition("\0")[2]: array for key, array in state.items() if key.partition("\0")[0] == name}
            values = {key: array if array.ndim else array.item() for key, array in own.items()}
            setattr(self, name, values if isinstance(getattr(self, name), Mapping) else values[""])

    @abstractmethod
    def target(self, weights: Mapping[str, Array]) -> Masks:
        """The masks of the end, as they would be chosen now."""

    @abstractmethod
    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """The masks from a step on, which is counted from 0; None where they stay."""

    def observe(self, weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:  # noqa: B027
        """Look at the gradients of a step, before the weights change."""

    def shrink(self, step: int, weights: Mapping[str, Array], rate: float) -> None:  # noqa: B027
        """Draw weights to zero, in place, after they were changed by a step of this rate."""
