"""The time of what is run in place of a model, its quantised form, as a function of the model's own groups.

Groups of both are the same channels: they cut the same axes of the same weights, to whose names quantisers add.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.cost.axis_lengths import AxisLengths
from onnxprune.cost.latency.prediction import Prediction
from onnxprune.cost.latency.profile import Profile
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array

# What ONNX Runtime's quantiser adds to the name of a stored weight.
STORED = "_quantized"


@dataclass(frozen=True, eq=False)
class Translated:
    """A prediction for one model, asked for in terms of another one's groups; a `CostFunction`.

    Attributes:
        widths: lengths of the model that is asked for.
        prediction: of what is run in its place.
        group_of: group of what is run -> that of the model; -1 where the model has none.
    """

    widths: AxisLengths
    prediction: Prediction
    group_of: Array

    @property
    def scale(self) -> float:
        """See `Prediction`."""
        return self.prediction.scale

    @property
    def layers(self) -> Mapping[str, float]:
        """See `Prediction`; nodes are called as in the model."""
        return self.prediction.layers

    def total(self, counts: Array) -> float:
        """See `CostFunction`."""
        return self.prediction.total(self._counts(counts))

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        """See `CostFunction`."""
        number = self._number(group)
        if number is None:
            return np.full(len(allowed), self.total(counts))
        return self.prediction.along(self._counts(counts), number, allowed)

    def changed(self, counts: Array, group: int, allowed: Array) -> tuple[Array, Array]:
        """See `Prediction`."""
        number = self._number(group)
        if number is None:
            return np.empty(0, np.int64), np.zeros((len(allowed), 0))
        return self.prediction.changed(self._counts(counts), number, allowed)

    def corrected(self, counts: Array, nodes: Profile, seconds: float) -> Translated:
        """See `Prediction`."""
        return replace(self, prediction=self.prediction.corrected(self._counts(counts), nodes, seconds))

    def _counts(self, counts: Array) -> Array:
        """int64[groups of what is run]: the units that its groups lose if those of the model lose `counts`."""
        return np.where(self.group_of >= 0, counts[self.group_of], 0).astype(np.int64)

    def _number(self, group: int) -> int | None:
        """The group of what is run that is a group of the model."""
        found = np.flatnonzero(self.group_of == group)
        return int(found[0]) if len(found) else None


def in_terms_of(prediction: Prediction, widths: AxisLengths) -> Translated:
    """Ask for a prediction in terms of the groups of another model.

    Args:
        prediction: of what is run in place of the model.
        widths: lengths of the model.
    """
    own, numbers = prediction.widths, list[int]()
    known, seen = _cutting(widths.groups), _cutting(own.groups)
    for index, group in enumerate(own.groups.groups):
        found = (known[cut][seen[cut].index(index)] for cut in _cuts(group) if len(known[cut]) == len(seen[cut]))
        number = next(found, -1)
        numbers.append(number if number >= 0 and own.units(index) == widths.units(number) else -1)
    return Translated(widths, prediction, np.array(numbers, np.int64))


def _cuts(group: Group) -> list[tuple[str, int]]:
    """The weights that a group cuts, as they are called before they are quantised, with the axes."""
    return [(member.tensor.removesuffix(STORED), member.axis) for member in group.members]


def _cutting(groups: Groups) -> Mapping[tuple[str, int], list[int]]:
    """The groups that cut an axis of a weight, in the order of its positions."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, group in enumerate(groups.groups):
        for cut in dict.fromkeys(_cuts(group)):
            found[cut].append(index)
    return found
