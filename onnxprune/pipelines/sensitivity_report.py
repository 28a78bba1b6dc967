"""What cutting each group does to a model: curves of damage, as they were measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.shown import Shown
from onnxprune.typing import Array

FORMAT, VERSION = "onnxprune-sensitivity", 1


# Metric -> its damage: 0 for no change, more for worse, from the value and the original's own.
METRICS: Mapping[str, Callable[[float, float], float]] = {
    "error": lambda value, whole: value,
    "sqnr": lambda value, whole: 10 ** (-value / 10),
    "cosine": lambda value, whole: 1 - value,
    "kl": lambda value, whole: value,
    "top1": lambda value, whole: 1 - value,
    "value": lambda value, whole: max(0.0, whole - value),
}


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        removed: units that were removed.
        ratio: these, as a share of the group's units.
        values: by metric.
    """

    removed: int
    ratio: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """What cutting one group does.

    Attributes:
        group: its name.
        kind: of its units.
        exact: whether other positions keep their values.
        units: how many it has.
        points: the measurements, by rising number of removed units.
    """

    group: str
    kind: str
    exact: bool
    units: int
    points: tuple[Point, ...]

    def at(self, ratio: float) -> Point | None:
        """The measurement that removes most, of those that remove no more than `ratio`; None where nothing goes."""
        within = [p for p in self.points if p.ratio <= ratio + 1e-9]
        return within[-1] if within else None


@dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """What cutting each group does to a model.

    Attributes:
        curves: one per group that could be cut, in graph order.
        metric: the metric that is looked at; the points may have more.
        ratios: shares that were asked for.
        whole: the original's own value under an evaluation, else empty.
        chosen: group -> share of its units that the options remove, for the groups that they cut.
        about: model, criterion, samples, and what else the measurements depend on.
        seconds: wall time, of what was measured now.
        measured: measurements that were made now; the others were found in the cache.

    Example:
        >>> import json, onnxprune
        >>> data = "models/digits_calibration.npz"
        >>> report = onnxprune.sensitivity("models/digits.onnx", data, ratios=[0.5], samples=16)
        >>> again = onnxprune.Sensitivity.from_json(json.dumps(report.as_json()))
        >>> [curve.group for curve in again.curves]
        ['conv.weight', 'conv_1.weight', 'residual.conv.weight', 'fc.weight']
    """

    curves: tuple[Curve, ...]
    metric: str
    ratios: tuple[float, ...]
    whole: Mapping[str, float] = field(default_factory=dict)
    chosen: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    measured: int = 0

    def value(self, point: Point) -> float:
        """What a measurement found, by `metric`."""
        return point.values[self.metric]

    def damage(self, point: Point, metric: str = "") -> float:
        """The same as a number that is 0 for no change and grows with the damage."""
        metric = metric or self.metric
        return max(0.0, METRICS[metric](point.values[metric], self.whole.get(metric, 0.0)))

    def curves_of(self, metric: str = "") -> dict[str, tuple[list[float], list[float]]]:
        """Group name -> (ratios, damage at each), from nothing removed (damage 0) on."""
        return {
            c.group: ([0.0, *(p.ratio for p in c.points)], [0.0, *(self.damage(p, metric) for p in c.points)])
            for c in self.curves
        }

    def damage_by_units(self, metric: str = "") -> dict[str, Array]:
        """Group name -> float64[units + 1]: the damage of losing 0, 1, ... units.

        Between measurements it rises in straight lines, and never falls; beyond the last it rises as before.
        """
        found = {}
        for curve, (ratios, damage) in zip(self.curves, self.curves_of(metric).values(), strict=True):
            steps = np.arange(curve.units + 1) / curve.units
            rising = np.maximum.accumulate(damage)
            slope = (rising[-1] - rising[-2]) / (ratios[-1] - ratios[-2])
            found[curve.group] = np.interp(steps, ratios, rising) + slope * np.maximum(steps - ratios[-1], 0)
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        return {"format": FORMAT, "version": VERSION} | asdict(self)

    @staticmethod
    def from_json(text: str | bytes) -> Sensitivity:
        """Read what `as_json` gave, as text.

        Raises:
            UsageError: it is something else.
        """
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT or raw.pop("version") != VERSION:
                raise ValueError(f"it is not of the format {FORMAT!r}, version {VERSION}")
            curves = tuple(Curve(**{**c, "points": tuple(Point(**p) for p in c["points"])}) for c in raw["curves"])
            return Sensitivity(**{**raw, "curves": curves, "ratios": tuple(raw["ratios"])})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"not a sensitivity report: {error}") from error
