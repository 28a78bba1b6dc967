"""How far outputs agree, added up over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.typing import Array

# What stands for an output that is no number: sums of its square still are numbers.
HUGE = 1e60
# Fewer rows than these, or classes that agree more often by chance, do not tell whether they agree by chance alone.
LEAST_ROWS, LARGEST_CHANCE = 16, 0.6


@dataclass(frozen=True)
class Agreement:
    """Agreement of all float outputs over all samples; NaN where there are none.

    Attributes:
        error: squared difference over the squared deviation of the original's outputs from their mean.
        sqnr: signal to noise in dB, 10 log10 of the original's energy over that of the difference.
        cosine: mean cosine between the outputs of a sample.
        top1: share of samples whose largest entry is at the same place, for outputs [samples, classes]; None where no
            output is such.
        kl: mean Kullback-Leibler divergence (nats) of the class probabilities from the original's, for the same
            outputs; numbers that are no probabilities already are logits.
        chance: what `top1` would be if either model drew its classes as often as it does, but without looking.
        rows: how many rows `top1` is the mean of.
    """

    error: float
    sqnr: float
    cosine: float
    top1: float | None
    kl: float | None = None
    chance: float | None = None
    rows: int = 0

    @property
    def ruin(self) -> str:
        """Why the outputs have nothing to do with the original's; empty where they have, or where nothing is known.

        Either the error is larger than the outputs, or classes agree no more often than by chance, within a standard
        error: too few rows, or rows that are mostly of one class, say nothing.
        """
        if not self.is_known:
            return ""
        if self.sqnr < 0:
            return f"their error is larger than the outputs themselves ({self.sqnr:.1f} dB)"
        if self.top1 is None or self.chance is None or self.rows < LEAST_ROWS or self.chance > LARGEST_CHANCE:
            return ""
        if self.top1 > self.chance + math.sqrt(self.chance * (1 - self.chance) / self.rows):
            return ""
        return f"{self.top1:.0%} keep their class, by chance it would be {self.chance:.0%}"

    @property
    def is_known(self) -> bool:
        """Whether there was anything to compare."""
        return not math.isnan(self.error)


class _Moments:
    """Samples of an output, added up over all runs: a batch of one has no deviation of its own."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(()), 0.0

    def add(self, samples: Array) -> None:
        self._count += len(samples)
        self._sum = self._sum + samples.sum(axis=0)
        self._squares += float(np.square(samples).sum())

    def spread(self) -> float:
        """Squared deviation from the mean sample; of a single one, from the mean of its entries."""
        if self._count > 1:
            return self._squares - float(np.square(self._sum).sum()) / self._count
        return self._squares - float(self._sum.sum()) ** 2 / self._sum.size


class AgreementAccumulator:
    """Adds up how far outputs agree, one run after the other."""

    def __init__(self) -> None:
        self._wrong = self._energy = 0.0
        self._moments: dict[tuple[int, tuple[int, ...]], _Moments] = {}
        self._cosines: list[Array] = []
        self._same: list[Array] = []
        self._apart: list[Array] = []
        self._classes: dict[tuple[int, int], Array] = {}

    def add(self, wanted: Sequence[Any], found: Sequence[Any]) -> None:
        """Compare the outputs of one run.

        What is no float array of the same shape is left out, and entries that are no numbers in the original are.
        """
        for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or a.shape != b.shape:
                continue
            known = np.isfinite(a)
            if not known.any():
                continue
            if a.ndim == 2 and a.shape[1] > 1:
                p, q = (_numbers(x, known, -HUGE) for x in (a, b))
                one, two = p.argmax(axis=-1), q.argmax(axis=-1)
                self._same.append(one == two)
                counts = self._classes.setdefault((index, a.shape[1]), np.zeros((2, a.shape[1]), np.int64))
                counts += [np.bincount(x, minlength=a.shape[1]) for x in (one, two)]
                self._apart.append(_divergence(p, q))
            a, b = (_numbers(x, known, 0) for x in (a, b))
            self._wrong += float(np.square(a - b).sum())
            self._energy += float(np.square(a).sum())
            self._moments.setdefault((index, a.shape[1:]), _Moments()).add(a if a.ndim else a[None])
            self._cosines.append(_cosine(a, b))

    def agreement(self) -> Agreement:
        """What was found up to now."""
        if not self._cosines:
            return Agreement(math.nan, math.nan, math.nan, None)
        signal = sum(m.spread() for m in self._moments.values())
        return Agreement(
            error=self._wrong / max(signal, 1e-30),
            sqnr=10 * math.log10(max(self._energy, 1e-30) / max(self._wrong, 1e-30)),
            cosine=float(np.concatenate(self._cosines).mean()),
            top1=float(np.concatenate(self._same).mean()) if self._same else None,
            kl=float(np.concatenate(self._apart).mean()) if self._apart else None,
            chance=self._chance() if self._same else None,
            rows=sum(map(len, self._same)),
        )

    def _chance(self) -> float:
        """The share of rows that would agree by chance: per output, the sum of the products of both frequencies."""
        counts = list(self._classes.values())
        alike = sum(float((c[0] * c[1]).sum()) / int(c[0].sum()) for c in counts)
        return alike / sum(int(c[0].sum()) for c in counts)


def _numbers(x: Array, known: Array, other: float) -> Array:
    """In double precision, with `other` where nothing is known."""
    return np.where(known, np.nan_to_num(np.clip(x.astype(np.float64), -HUGE, HUGE), nan=HUGE), other)


def _cosine(a: Array, b: Array) -> Array:
    first = len(a) if a.ndim else 1
    a, b = a.reshape(first, -1), b.reshape(first, -1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(lengths > 0, (a * b).sum(axis=1) / np.maximum(lengths, 1e-300), 1.0)


def _divergence(a: Array, b: Array) -> Array:
    """Per row, the sum of p (log p - log q)."""
    given = (a >= 0).all() and np.allclose(a.sum(axis=1), 1, atol=1e-3)
    p, q = (_log_share(x, given=bool(given)) for x in (a, b))
    return np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0)


def _log_share(x: Array, *, given: bool) -> Array:
    """Logarithms of the probabilities that a row holds, or that its logits stand for."""
    if given:
        return np.log(np.maximum(x, 1e-12))
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
