"""Agreement of outputs, added up over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.runtime.moments import Moments
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
        rows: how many rows `top1` is the mean of, or `correlation` is of.
        correlation: that of the outputs of one number per sample with the original's; None where there is no such
            output, or more than one, or the original always gives the same.
        outputs: every output by itself, where there are several.
        name: of the output, where it is one.
    """

    error: float
    sqnr: float
    cosine: float
    top1: float | None
    kl: float | None = None
    chance: float | None = None
    rows: int = 0
    correlation: float | None = None
    outputs: tuple[Agreement, ...] = ()
    name: str = ""

    def is_better_than(self, other: Agreement) -> bool:
        """Whether any measure says so: scores that all are shifted or scaled have a large error, and mean the same."""
        divergence = self.kl is not None and other.kl is not None and self.kl < other.kl
        return self.error < other.error or self.cosine > other.cosine or divergence

    @property
    def ruin(self) -> str:
        """Why the outputs have nothing to do with the original's; empty where they have, or where nothing is known.

        Any output by itself: large ones, as the state of a recurrence, would hide a small one. Either the error is
        larger than the outputs, or classes agree, or scores rise and fall together, no more than by chance, within a
        standard error: too few rows, or rows that are mostly of one class, say nothing.
        """
        for one in self.outputs:
            if why := one.ruin:
                return f"output {one.name!r}: {why}" if one.name else why
        if not self.is_known or self.outputs:
            return ""
        if self.sqnr < 0:
            return f"their error is larger than the outputs themselves ({self.sqnr:.1f} dB)"
        if self.correlation is not None and self.rows >= LEAST_ROWS and self.correlation <= self.rows**-0.5:
            return f"they do not rise and fall with the original's (correlation {self.correlation:.2f})"
        if self.top1 is None or self.chance is None or self.rows < LEAST_ROWS or self.chance > LARGEST_CHANCE:
            return ""
        if self.top1 > self.chance + math.sqrt(self.chance * (1 - self.chance) / self.rows):
            return ""
        return f"{self.top1:.0%} keep their class, by chance it would be {self.chance:.0%}"

    @property
    def distance(self) -> float:
        """One number for how far outputs are apart, to rank models by; infinite where they are no numbers."""
        distance = self.kl if self.kl is not None else self.error
        return distance if math.isfinite(distance) else math.inf

    @property
    def is_known(self) -> bool:
        """Whether there was anything to compare."""
        return not math.isnan(self.error)


def _spread(moments: Moments) -> float:
    """Squared deviation of samples from their mean; of a single one, from the mean of its entries."""
    if moments.count > 1:
        return float(moments.variance.sum()) * moments.count
    return float(np.square(moments.mean - moments.mean.mean()).sum())


class _Output:
    """What is added up for one output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wrong = self.energy = 0.0
        self.moments: dict[tuple[int, ...], Moments] = {}
        self.cosines: list[Array] = []
        self.same: list[Array] = []
        self.apart: list[Array] = []
        self.classes: dict[int, Array] = {}
        self.scores: list[Array] = []

    def add(self, a: Array, b: Array) -> None:
        """Compare the arrays of one run; entries that are no numbers in the original are left out."""
        known = np.isfinite(a)
        if not known.any():
            return
        if a.ndim == 2 and a.shape[1] > 1:
            p, q = (_numbers(x, known, -HUGE) for x in (a, b))
            one, two = p.argmax(axis=-1), q.argmax(axis=-1)
            self.same.append(one == two)
            counts = self.classes.setdefault(a.shape[1], np.zeros((2, a.shape[1]), np.int64))
            counts += [np.bincount(x, minlength=a.shape[1]) for x in (one, two)]
            self.apart.append(_divergence(p, q))
        a, b = (_numbers(x, known, 0) for x in (a, b))
        if a.ndim and a.size == len(a):
            self.scores.append(np.stack([a.reshape(-1), b.reshape(-1)])[:, known.reshape(-1)])
        self.wrong += float(np.square(a - b).sum())
        self.energy += float(np.square(a).sum())
        self.moments.setdefault(a.shape[1:], Moments((1, *a.shape[1:]))).add(a if a.ndim else a[None])
        self.cosines.append(_cosine(a, b))

    def correlation(self) -> float | None:
        """That of single numbers; None where the original always gives the same."""
        if not self.scores or len(self.scores) != len(self.cosines):
            return None
        a, b = (x - x.mean() for x in np.concatenate(self.scores, axis=1))
        if not a.any():
            return None
        return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))


class AgreementAccumulator:
    """Adds up how far outputs agree, one run after the other."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            names: of the outputs, in their order, as far as they have some.
        """
        self._names = names
        self._outputs: dict[int, _Output] = {}

    def add(self, wanted: Sequence[Any], found: Sequence[Any]) -> None:
        """Compare the outputs of one run.

        What is no float array of the same shape is left out, and entries that are no numbers in the original are.
        """
        for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
            if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.shape == b.shape:
                name = self._names[index] if index < len(self._names) else ""
                self._outputs.setdefault(index, _Output(name)).add(a, b)

    def agreement(self) -> Agreement:
        """What was found up to now."""
        outputs = [output for output in self._outputs.values() if output.cosines]
        alone = tuple(_agreement([output]) for output in outputs if output.energy)
        return replace(_agreement(outputs), outputs=alone if len(outputs) > 1 else ())


def _agreement(outputs: Sequence[_Output]) -> Agreement:
    """That of several outputs together."""
    if not outputs:
        return Agreement(math.nan, math.nan, math.nan, None)
    signal = sum(_spread(m) for o in outputs for m in o.moments.values())
    wrong, energy = (sum(x) for x in zip(*((o.wrong, o.energy) for o in outputs), strict=True))
    same, apart, cosines = ([x for o in outputs for x in getattr(o, kind)] for kind in ("same", "apart", "cosines"))
    correlation = outputs[0].correlation() if len(outputs) == 1 else None
    return Agreement(
        error=wrong / max(signal, 1e-30),
        sqnr=10 * math.log10(max(energy, 1e-30) / max(wrong, 1e-30)),
        cosine=float(np.concatenate(cosines).mean()),
        top1=float(np.concatenate(same).mean()) if same else None,
        kl=float(np.concatenate(apart).mean()) if apart else None,
        chance=_chance([counts for o in outputs for counts in o.classes.values()]) if same else None,
        rows=sum(map(len, same)) or (sum(x.shape[1] for x in outputs[0].scores) if correlation is not None else 0),
        correlation=correlation,
        name=outputs[0].name if len(outputs) == 1 else "",
    )


def _chance(counts: Sequence[Array]) -> float:
    """The share of rows that would agree by chance: per output, the sum of the products of both frequencies."""
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
