"""The timer of a model: latency before and after pruning, predicted from tables and measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.cost.axis_lengths import AxisLengths, units_in_order
from onnxprune.cost.latency.prediction import Prediction, predict
from onnxprune.cost.latency.profile import Profile, profile
from onnxprune.cost.latency.translated import Translated, in_terms_of
from onnxprune.model import Model
from onnxprune.model.shapes.symbols import sizes_of
from onnxprune.runtime import CPU_PROVIDER
from onnxprune.runtime.bench import Place, candidate, feeds_at, feeds_of
from onnxprune.runtime.paired_timing import SESSIONS, TimeRatio, compare_timings
from onnxprune.tracing import trace
from onnxprune.typing import Array

# Of timed runs, for every model in a comparison.
SECONDS = 0.8
# Bytes of a model that is opened half as often, since that takes longer than running it.
LARGE = 1 << 26
# Multiples that widths may be rounded to.
MULTIPLES = (1, 2, 4, 8, 16, 32)
# Time that rounding may leave on the table, as a share; and the part of the widths that is looked at: from an eighth.
WASTE, SMALLEST = 0.03, 8


@dataclass(frozen=True)
class Timed:
    """The time of a model that pruning made.

    Attributes:
        before: seconds of a run of the original.
        ratio: how much of that is left, measured in turn.
        predicted: the share that was expected from tables, and from what measurements corrected in them; None where
            there are none.
        place: where.
        damage: share of the importance of all units, by their scores, that goes.
    """

    before: float
    ratio: TimeRatio
    predicted: float | None
    place: Place
    damage: float | None = None

    @property
    def after(self) -> float:
        """Seconds of a run."""
        return self.before * self.ratio.value

    @property
    def is_slower(self) -> bool:
        """Whether the smaller model measures slower than the original."""
        return self.ratio.low > 1


@dataclass(eq=False)
class Timer:
    """Times one model, and what is made of it.

    Attributes:
        model: the original.
        place: where.
        progress: is told about every stage.
    """

    model: Model
    place: Place
    progress: Callable[[str], object] = lambda stage: None
    _known: Prediction | Translated | None = field(default=None, repr=False)
    _last: tuple[Model, TimeRatio] | None = field(default=None, repr=False)
    _made: tuple[Model, Model] | None = field(default=None, repr=False)
    _seen: list[tuple[Array, Profile, float]] = field(default_factory=list, repr=False)

    @cached_property
    def feeds(self) -> Mapping[str, np.ndarray]:
        """Inputs of the original."""
        return feeds_of(self.model, self.place)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Numbers for its symbolic dims."""
        return sizes_of(self.model.proto.graph, {name: value.shape for name, value in self.feeds.items()})

    @cached_property
    def before(self) -> float:
        """Seconds of a run of the original."""
        self.progress("timing the model")
        alone = compare_timings(
            [candidate(self.model, self.place.setting, self.feeds)], seconds=SECONDS, sessions=self._sessions
        )
        return alone.typical(0)

    @cached_property
    def _profile(self) -> Profile | None:
        if self.place.setting.provider != CPU_PROVIDER:
            return None  # the profiler times what is launched, not what runs
        self.progress("timing the nodes of the model")
        return profile(self._deployed, self.feeds, self.place.setting)

    @cached_property
    def _deployed(self) -> Model:
        """What is run in place of the original."""
        return self._run_as(self.model)

    def _run_as(self, model: Model) -> Model:
        """What is run in place of a model; made once while it is the last one that was asked for."""
        if self._made is None or self._made[0] is not model:
            self._made = model, model if self.place.deployed is None else self.place.deployed(model)
        return self._made[1]

    def expected(self, widths: AxisLengths) -> Prediction | Translated:
        """Seconds as a function of what groups lose; what was measured of the original where nothing goes."""
        if self._known is None or not _is_same(self._known.widths, widths):
            found = self._predicted(widths)
            for counts, nodes, seconds in self._seen:
                found = found.corrected(counts, nodes, seconds)
            self._known = found
        return self._known

    def _predicted(self, widths: AxisLengths) -> Prediction | Translated:
        about = (self.sizes, self._profile, self.place.setting, self.progress)
        if self.place.deployed is None:
            return predict(widths, *about).anchored(self.before)
        groups = trace(self._deployed, sizes=self.sizes)
        order = {group.name: units_in_order(group, np.zeros(groups.classes.count)) for group in groups.groups}
        return in_terms_of(predict(AxisLengths(groups, order), *about).anchored(self.seconds(self.model)), widths)

    def compared(self, small: Model) -> TimeRatio:
        """How much of the original's time a smaller model takes, measured in turn; once for every model."""
        if self._last is None or self._last[0] is not small:
            self._last = small, self._compare(small)
        return self._last[1]

    def correct(self, small: Model, counts: Array) -> None:
        """Let what a smaller model takes, node by node, correct what tables say.

        Args:
            small: the smaller model.
            counts: int[groups], the units that its groups have lost.
        """
        if self._known is None or self._profile is None:
            return
        self.progress("timing the nodes of the smaller model")
        run = self._run_as(small)
        nodes = profile(run, feeds_at(run, self.place.setting, self.sizes), self.place.setting)
        self._seen.append((counts, nodes, self.seconds(small)))
        self._known = self._known.corrected(*self._seen[-1])

    def _compare(self, small: Model) -> TimeRatio:
        self.progress("timing the smaller model")
        run = self._run_as(small)
        given = [(self.model, self.feeds), (run, feeds_at(run, self.place.setting, self.sizes))]
        candidates = [candidate(m, self.place.setting, f) for m, f in given]
        return compare_timings(candidates, seconds=SECONDS, sessions=self._sessions).ratio(1)

    @property
    def _sessions(self) -> int:
        return SESSIONS if self.model.nbytes < LARGE else SESSIONS // 2

    def seconds(self, small: Model) -> float:
        """Seconds of a run of a smaller model, in terms of what the original took."""
        return self.before * self.compared(small).value


def _is_same(one: AxisLengths, other: AxisLengths) -> bool:
    """Whether units go in the same order."""
    names = one.order.keys() | other.order.keys()
    nothing = np.zeros((0, 1), np.int64)
    return (
        one.groups is other.groups
        and one.parts == other.parts
        and all(np.array_equal(one.order.get(n, nothing), other.order.get(n, nothing)) for n in names)
    )


def alignments(prediction: Prediction | Translated) -> dict[str, int]:
    """Find the multiples that the widths of groups are best rounded to (see `alignment`).

    Args:
        prediction: the times.

    Returns:
        Name of a group -> a power of two.
    """
    found = ((g.name, alignment(prediction, index)) for index, g in enumerate(prediction.widths.groups.groups))
    return dict(found)


def alignment(prediction: Prediction | Translated, group: int) -> int:
    """The smallest power of two such that multiples of it are widths that a group should have.

    A width is as it should be if no mixture of a smaller and a larger one is faster: if its time is on the lower convex
    hull of all. Kernels that work in blocks leave it wherever a block is not full.

    Args:
        prediction: the times.
        group: the number of the group.
    """
    widths = prediction.widths
    about = widths.groups.groups[group]
    units = widths.units(group)
    if units < 2 or about.kind == "head":
        return 1
    counts = np.arange(units)
    seconds = prediction.changed(np.zeros(widths.count, np.int64), group, counts)[1].sum(axis=1)
    left = about.members[0].size - counts * max(1, about.members[0].positions // about.units)
    waste = {m: _waste(left[::-1], seconds[::-1], m) for m in MULTIPLES}
    return next((m for m in MULTIPLES if waste[m] <= WASTE), min(MULTIPLES, key=lambda m: waste[m]))


def _waste(widths: Array, seconds: Array, multiple: int) -> float:
    """By what share the time at multiples is above the hull, on average; infinite if there are too few to tell.

    Args:
        widths: int[n], rising.
        seconds: float64[n].
        multiple: the multiple.
    """
    chosen = (widths % multiple == 0) & (widths * SMALLEST >= widths[-1])
    if chosen.sum() < 2 or not seconds.all():
        return 0.0 if multiple == 1 else math.inf
    return float((seconds / _hull(widths, seconds) - 1)[chosen].mean())


def _hull(x: Array, y: Array) -> Array:
    """The lower convex hull of points, at each of them (Andrew's monotone chain); x rises."""
    kept: list[int] = []
    for i in range(len(x)):
        while len(kept) > 1 and _is_above(kept[-1], kept[-2], i, x, y):
            kept.pop()
        kept.append(i)
    return np.asarray(np.interp(x, x[kept], y[kept]))


def _is_above(middle: int, left: int, right: int, x: Array, y: Array) -> bool:
    return bool((y[middle] - y[left]) * (x[right] - x[left]) >= (y[right] - y[left]) * (x[middle] - x[left]))
