"""Quality constraints of a search: how much worse than the original the smaller model may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.pipelines.sensitivity_report import METRICS

RISING = frozenset(("sqnr", "cosine", "top1", "value"))
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)\s*(%|db)?\s*", re.IGNORECASE)

# The unit that may stand behind an amount of a metric, and how it is written.
_UNITS = {"value": ("%", "1% or 0.5"), "sqnr": ("db", "20dB"), "error": ("%", "1% or 0.01")}
# The metrics that say how far outputs diverge, the one that is meant without a name first.
DIVERGENCES = ("error", "kl")


@dataclass(frozen=True)
class QualityConstraint:
    """What the smaller model must keep.

    Attributes:
        metric: "value" (of an evaluation), or a metric of the agreement with the original on held-out inputs.
        limit: the least that is allowed of a metric that falls with damage, the most of one that rises; of "value" the
            largest drop.
        relative: the drop is a share of the original's value.
    """

    metric: str
    limit: float
    relative: bool = False

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"no metric is called {self.metric!r}", hint=f"known: {', '.join(METRICS)}")

    def bound(self, whole: Mapping[str, float]) -> float:
        """The limit in terms of the metric, given the original's own values."""
        if self.metric != "value":
            return self.limit
        return whole["value"] - self.limit * (abs(whole["value"]) if self.relative else 1.0)

    def holds(self, values: Mapping[str, float], whole: Mapping[str, float]) -> bool:
        """Whether a model with these values is good enough.

        Raises:
            UsageError: the metric does not apply to the model.
        """
        if self.metric not in values:
            raise UsageError(
                f"metric {self.metric!r} does not apply to this model", hint=f"it has {', '.join(values) or 'none'}"
            )
        found, bound = values[self.metric], self.bound(whole)
        return found >= bound if self.metric in RISING else found <= bound


def amount(metric: str, text: str) -> tuple[float, bool]:
    """(number, whether it is a share): `1%` or `0.5` of a value or an error, `20dB` or `20` of sqnr, else a number.

    Raises:
        UsageError: it is no such number.
    """
    found, (unit, hint) = _AMOUNT.fullmatch(text), _UNITS.get(metric, ("", "0.05"))
    if not found or (found[2] or unit).lower() != unit:
        raise UsageError(f"{metric}: {text!r} is not an amount", hint=f"write {hint}")
    share = found[2] == "%"
    return float(found[1]) / (100 if share else 1), share


def drop_constraint(text: str | float) -> QualityConstraint:
    """Read how much a value may drop: `1%` of the original's, or a number.

    Raises:
        UsageError: it is no such amount.
    """
    return QualityConstraint("value", *amount("value", str(text)))


def sqnr_constraint(text: str | float) -> QualityConstraint:
    """Read the least signal to noise of the outputs: `20dB`, or a number.

    Raises:
        UsageError: it is no such amount.
    """
    return QualityConstraint("sqnr", amount("sqnr", str(text))[0])


def divergence_constraint(text: str) -> QualityConstraint:
    """Read how far outputs may diverge: `1%` or `error=0.01` of their squares, `kl=0.05` nats of classes.

    Raises:
        UsageError: it is no such amount.
    """
    name, _, limit = text.rpartition("=")
    metric = name or DIVERGENCES[0]
    if metric not in DIVERGENCES:
        raise UsageError(f"--max-divergence: no metric is called {metric!r}", hint=f"known: {', '.join(DIVERGENCES)}")
    return QualityConstraint(metric, amount(metric, limit)[0])


def quality_constraint(max_drop: str | float | None, min_sqnr: str | float | None) -> QualityConstraint | None:
    """What one model must keep.

    Args:
        max_drop: the most that a measure may drop, as "1%" or a number.
        min_sqnr: the least signal to noise, in dB.

    Returns:
        The constraint; None where neither is given.

    Raises:
        UsageError: both are given, or one is no such amount.
    """
    if max_drop is not None and min_sqnr is not None:
        raise UsageError("--max-drop and --min-sqnr are two measures of what is good enough", hint="leave one out")
    if max_drop is not None:
        return drop_constraint(max_drop)
    return None if min_sqnr is None else sqnr_constraint(min_sqnr)
