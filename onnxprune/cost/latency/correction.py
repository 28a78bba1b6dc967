"""Correction of latency tables by measured smaller models: a curve for every node, from predicted to measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxprune.typing import Array


@dataclass(frozen=True)
class CorrectionCurve:
    """The measured time of one node against its predicted time.

    Attributes:
        predicted: float64[points] seconds, rising from 0 to those of the whole node.
        measured: float64[points] seconds, never falling; the first is what the node takes however narrow it is.
    """

    predicted: Array
    measured: Array

    @classmethod
    def of(cls, whole: float, points: Iterable[tuple[float, float]]) -> CorrectionCurve:
        """Straight between measurements, and from the lowest of them on as it comes down from the whole node.

        Args:
            whole: seconds of the whole node, where the prediction is right by construction.
            points: (predicted, measured) seconds of the node in smaller models.
        """
        seen: dict[float, list[float]] = {}
        for predicted, measured in points:
            if 0 < predicted < whole * (1 - 1e-6):
                seen.setdefault(predicted, []).append(measured)
        known = sorted((predicted, float(np.mean(measured))) for predicted, measured in seen.items())
        if not known:
            return cls(np.array([0.0, whole]), np.array([0.0, whole]))
        low, seconds = known[0]
        slope = (whole - seconds) / (whole - low)
        floor = min(max(0.0, seconds - slope * low), seconds)
        predicted, measured = np.array([(0.0, floor), *known, (whole, whole)]).T
        return cls(predicted, np.minimum(np.maximum.accumulate(measured), whole))

    def __call__(self, predicted: Array) -> Array:
        """float64[...]: corrected seconds; what is predicted above the whole node stays in proportion to it."""
        beyond = np.maximum(predicted / self.predicted[-1], 1.0) if self.predicted[-1] > 0 else 1.0
        return np.asarray(np.interp(predicted, self.predicted, self.measured) * beyond)
