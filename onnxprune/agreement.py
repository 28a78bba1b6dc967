"""How far the outputs of a model agree with those of the original, without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune import interface
from onnxprune.cut import Cut
from onnxprune.labels import Array
from onnxprune.model import Model
from onnxprune.runtime import Session


@dataclass(frozen=True)
class Agreement:
    """Agreement of all float outputs over all samples.

    Attributes:
        error: squared difference over the squared deviation of the original's outputs from their mean.
        sqnr: signal to noise in dB, 10 log10 of the original's energy over that of the difference.
        cosine: mean cosine between the outputs of a sample.
        top1: share of samples whose largest entry is at the same place, for outputs [samples, classes]; None where no
            output is such.
    """

    error: float
    sqnr: float
    cosine: float
    top1: float | None


def agreement(cut: Cut, other: Model, runs: Sequence[Mapping[str, Array]]) -> Agreement:
    """Compare the original with what `cut` makes of it on `runs`, inputs for the original.

    Raises:
        RunError: the runtime fails.
    """
    wrong = spread = energy = 0.0
    cosines: list[Array] = []
    same: list[Array] = []
    with Session(cut.groups.model) as one, Session(other) as two:
        for feeds in runs:
            wanted = interface.outputs(cut, one.outputs, one.run(feeds))
            for a, b in zip(wanted, two.run(interface.feeds(cut, feeds), one.outputs), strict=True):
                if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or not a.size or a.shape != b.shape:
                    continue
                a, b = a.astype(np.float64), b.astype(np.float64)
                wrong += float(np.square(a - b).sum())
                energy += float(np.square(a).sum())
                spread += float(np.square(a - a.mean(axis=0, keepdims=a.ndim > 0 and len(a) > 1)).sum())
                cosines.append(_cosine(a, b))
                if a.ndim == 2 and a.shape[1] > 1:
                    same.append(a.argmax(axis=-1).reshape(-1) == b.argmax(axis=-1).reshape(-1))
    return Agreement(
        wrong / max(spread, 1e-30),
        10 * math.log10(max(energy, 1e-30) / max(wrong, 1e-30)),
        float(np.concatenate(cosines).mean()) if cosines else math.nan,
        float(np.concatenate(same).mean()) if same else None,
    )


def _cosine(a: Array, b: Array) -> Array:
    first = len(a) if a.ndim else 1
    a, b = a.reshape(first, -1), b.reshape(first, -1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(lengths > 0, (a * b).sum(axis=1) / np.maximum(lengths, 1e-300), 1.0)
