"""Zeros in the weights of a model, as a mask leaves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.layers.effective import Weights
from onnxprune.layers.readers import making_axes
from onnxprune.tracing import Groups


@dataclass(frozen=True)
class Mask:
    """The zeros of a model.

    Attributes:
        zeros: how many elements of the weights are zero.
        elements: how many there are.
        rows: how many of the zeros are in rows of zeros, whose units other weights keep alive.
    """

    zeros: int
    elements: int
    rows: int

    @property
    def share(self) -> float:
        """The share of zeros."""
        return self.zeros / self.elements if self.elements else 0.0


def mask_of(groups: Groups) -> Mask:
    """Count the zeros in the weights of contractions, and those in rows of nothing but zeros.

    Args:
        groups: the traced model.

    Returns:
        The counts; stored numbers that stand for zero count as such.
    """
    weights, elements, zeros, rows = Weights(groups), 0, 0, 0
    met: set[str] = set()
    for view, rule in groups.tracing.views:
        for slot in range(len(view.node.input)) if rule is not None and rule.contractions is not None else ():
            name = view.node.input[slot]
            if not view.is_weight(slot) or name in met or len(view.shape(slot)) < 2:
                continue
            met.add(name)
            value = groups.tracing.weight_value(name)
            if value is not None:
                elements, zeros = elements + value.size, zeros + int((value == 0).sum())
    for _, axis, value in making_axes(weights):
        if value.ndim > 1:
            lines = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
            rows += int((lines == 0).all(axis=1).sum()) * lines.shape[1]
    return Mask(zeros, elements, min(rows, zeros))
