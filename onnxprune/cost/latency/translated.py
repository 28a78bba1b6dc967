"""The time of what is run in place of a model, its quantised form, as a function of the model's own groups.

Groups of both are the same channels, and are called by the same weights; quantisers add to the names of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.cost.axis_lengths import AxisLengths
from onnxprune.cost.latency.prediction import Prediction
from onnxprune.cost.latency.profile import Profile
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
    place, own = {group.name: i for i, group in enumerate(widths.groups.groups)}, prediction.widths
    numbers: Sequence[int] = [place.get(group.name.replace(STORED, ""), -1) for group in own.groups.groups]
    same = [n >= 0 and own.units(i) == widths.units(n) for i, n in enumerate(numbers)]
    return Translated(widths, prediction, np.where(same, numbers, -1))
