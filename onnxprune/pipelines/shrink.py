"""Remove what is dead, without loss, again and again until nothing changes."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnxprune import calibration
from onnxprune.cost import Cost, counts
from onnxprune.criteria import CAUSES, RANGE, Dead, Judged, judge
from onnxprune.errors import UsageError
from onnxprune.layers import Mask, mask_of
from onnxprune.model import Model
from onnxprune.model.graph import WEIGHT_TYPES, remove_dead
from onnxprune.model.protos import graphs, keep
from onnxprune.pipelines.clock import Clock
from onnxprune.progress import Progress
from onnxprune.proof import Trials, Verdict, equals
from onnxprune.recovery import take_over
from onnxprune.rewriting import Plan, Removal, removed_classes
from onnxprune.rewriting import plan as plans
from onnxprune.rewriting.rewrite import nested, rewritten
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array, Ranges

logger = logging.getLogger(__name__)

RANGE_KEY = "onnxprune.input_range"
# Rounds; every one of them removes a unit at least.
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class RemovedUnits:
    """Units of a group that went in one round for one cause.

    Attributes:
        group: its name.
        kind: "channel", "head" or "head dim".
        cause: one of `dead.CAUSES`.
        units: how many parts of the group.
        positions: their places in the group of the original; empty where the group is another by then.
    """

    group: str
    kind: str
    cause: str
    units: int
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shrunk:
    """Everything that shrinking a model gave.

    Attributes:
        model: the smaller model.
        before: cost of the original.
        after: cost of the smaller model.
        removed: what went, in order.
        stays: group -> why units of it that look dead stay -> how many.
        dead: how many "nodes" and "initializers" went that no output depends on.
        rounds: how often something was found.
        ranges: the input range that the equality rests on; empty where it holds for all inputs.
        mask: the zeros that are left.
        groups: the traced original, less its dead matter.
        verdict: the proof against the original; None if it was not asked for.
        seconds: wall time by stage.
    """

    model: Model
    before: Cost
    after: Cost
    removed: tuple[RemovedUnits, ...]
    stays: Mapping[str, Mapping[str, int]]
    dead: Mapping[str, int]
    rounds: int
    ranges: Ranges
    mask: Mask
    groups: Groups
    verdict: Verdict | None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """How many units went."""
        return sum(part.units for part in self.removed)

    @property
    def changed(self) -> bool:
        """Whether anything went."""
        return bool(self.removed or any(self.dead.values()))


@dataclass(frozen=True)
class ShrinkOptions:
    """How to shrink.

    Attributes:
        tolerance: weights of at most this size count as zero, and outputs may differ by this share of their largest.
        ranges: graph input ("" for all float inputs) -> the least and the largest number that it is ever given.
        sizes: numbers for symbolic dims.
        verify: prove the result.
    """

    tolerance: float = 0.0
    ranges: Ranges = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    verify: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise UsageError(f"the tolerance must be at least 0 and below 1, not {self.tolerance:g}")


def shrink_model(
    model: Model,
    options: ShrinkOptions | None = None,
    *,
    data: Any = None,
    samples: int = 256,
    progress: Progress | None = None,
) -> Shrunk:
    """Remove what is dead.

    Args:
        model: the model.
        options: how.
        data: inputs on which the result must equal the original, besides random ones (see `calibration.read`).
        samples: how many of them to use.
        progress: is told about every stage.

    Returns:
        The smaller model, what went and why, and the proof.

    Raises:
        UsageError: a range is not one, or data leave it.
    """
    options, clock = options or ShrinkOptions(), Clock(progress)
    options = replace(options, ranges=ranges_of(model, options.ranges))
    runs = [] if data is None else calibration.read(data, model, samples=samples, sizes=options.sizes)
    shrinking = _Shrinking(tidied(model), options, clock)
    dead = matter(model) - matter(shrinking.model)
    for head_dims in (False, True):
        shrinking.until_nothing_changes(head_dims=head_dims)
    relied = options.ranges if any(part.cause == RANGE for part in shrinking.removed) else {}
    small = noted(shrinking.model, relied) if relied else shrinking.model
    verdict = None
    if options.verify:
        with clock("proving"):
            trials = Trials(ranges=options.ranges, samples=runs, sizes=options.sizes)
            verdict = equals(trace(model, sizes=options.sizes), small, trials, tolerance=options.tolerance)
    with clock("counting"):
        before, after = (counts.of(each, options.sizes) for each in (model, small))
        mask = mask_of(trace(small, sizes=options.sizes))
    assert shrinking.original is not None
    return Shrunk(
        model=small,
        before=before,
        after=after,
        removed=tuple(shrinking.removed),
        stays=shrinking.stays,
        dead=dead,
        rounds=shrinking.rounds,
        ranges=relied,
        mask=mask,
        groups=shrinking.original,
        verdict=verdict,
        seconds=clock.seconds,
    )


@dataclass
class _Shrinking:
    """A model that gets smaller from round to round.

    Attributes:
        model: the model as it is now.
        options: how it is made smaller; every round is proven if the result is.
        clock: times the stages.
        removed: what went so far.
        stays: group -> why units of it that look dead stay -> how many, as of the last round.
        rounds: how often something was found.
        places: group -> the places of its parts in the original.
        original: the trace that it began with.
    """

    model: Model
    options: ShrinkOptions
    clock: Clock
    removed: list[RemovedUnits] = field(default_factory=list)
    stays: dict[str, dict[str, int]] = field(default_factory=dict)
    rounds: int = 0
    places: dict[str, Array] = field(default_factory=dict)
    original: Groups | None = None

    def until_nothing_changes(self, *, head_dims: bool) -> None:
        """Remove what is dead, and what is dead then; of attention whole heads, or dimensions of all heads."""
        closed: set[str] = set()
        for _ in range(MOST_ROUNDS):
            with self.clock("tracing"):
                groups = trace(self.model, head_dims=head_dims, sizes=self.options.sizes)
            with self.clock("looking for dead units"):
                judged = judge(groups, ranges=self.options.ranges, tolerance=self.options.tolerance, closed=closed)
                dead = judged.dead()
            if self.original is None:
                self.original = groups
                self.places = {group.name: np.arange(len(group.classes)) for group in groups.groups}
            if not dead.removed:
                self._note_what_stays(groups, dead, head_dims=head_dims)
                return
            small, failed = self._without(groups, dead)
            closed |= set(failed)
            if failed:
                continue
            if self.options.verify and not self._holds(groups, small):
                dead, part = self._proven_part(groups, judged, dead)
                if part is None:
                    self._note_what_stays(groups, dead, head_dims=head_dims)
                    return
                small = part
            self._note(groups, dead, head_dims=head_dims)
            self.model = small

    def _without(self, groups: Groups, dead: Dead) -> tuple[Model, Collection[str]]:
        """The model without the dead units, and the layers that could not take over what these gave."""
        with self.clock("rewriting"):
            removal = Removal(groups, removed_classes(groups, dead.removed))
            small, failed = take_over(removal, rewritten(removal), dead.folds)
            return nested(small), failed

    @property
    def _trials(self) -> Trials:
        return Trials(ranges=self.options.ranges, sizes=self.options.sizes, seeds=1)

    def _holds(self, groups: Groups, small: Model) -> bool:
        with self.clock("proving"):
            verdict = equals(groups, small, self._trials, tolerance=self.options.tolerance)
        if not verdict.ok:
            logger.debug("a round fails its proof: %s", verdict.problem)
        return verdict.ok or not verdict.runnable

    def _proven_part(self, groups: Groups, judged: Judged, dead: Dead) -> tuple[Dead, Model | None]:
        """The groups whose proof holds one by one, carried out together; no model where there are none."""
        bad = set()
        for name in dead.removed:
            alone = judged.dead(leave=[other for other in dead.removed if other != name])
            if not self._holds(groups, self._without(groups, alone)[0]):
                logger.warning("group %s is left whole: its proof fails", name)
                bad.add(name)
        left = judged.dead(leave=bad)
        small = self._without(groups, left)[0] if left.removed else None
        if small is not None and not self._holds(groups, small):
            logger.warning("the remaining candidates are not removed: without all of them the proof fails")
            small = None
        return left, small

    def _note(self, groups: Groups, dead: Dead, *, head_dims: bool) -> None:
        """Remember what goes."""
        self.rounds += 1
        for group in groups.groups:
            if group.name not in dead.removed:
                continue
            indices = dead.removed[group.name]
            places = self.places.get(group.name)
            if head_dims or places is None or len(places) != len(group.classes):
                places = None
            for cause in CAUSES:
                of = np.array([i for i in indices if dead.causes[int(group.classes[i])] == cause], np.int64)
                if len(of):
                    where = () if places is None else tuple(places[of].tolist())
                    self.removed.append(RemovedUnits(group.name, group.kind, cause, len(of), where))
            self.places[group.name] = np.empty(0) if places is None else np.delete(places, indices)

    def _note_what_stays(self, groups: Groups, dead: Dead, *, head_dims: bool) -> None:
        """Remember why units that look dead stay."""
        for class_id, why in dead.stays.items():
            group = groups.groups[groups.group_of[class_id]]
            if head_dims == (group.kind == "head dim"):
                reasons = self.stays.setdefault(group.name, {})
                reasons[why] = reasons.get(why, 0) + 1


def plan_of(shrunk: Shrunk, sizes: Mapping[str, int] | None = None) -> Plan:
    """The units that went, as a plan for the original; those of groups that others had changed by then are not in it.

    Carried out by itself it removes the same units, but lets nothing take over what they gave.
    """
    groups, gone_at = shrunk.groups, dict[str, list[int]]()
    for part in shrunk.removed:
        gone_at.setdefault(part.group, []).extend(part.positions)
    chosen = {name: np.array(sorted(places), np.int64) for name, places in gone_at.items()}
    return plans.make(groups, chosen, np.zeros(groups.classes.count), {"verb": "shrink"}, sizes)


# --- the input range -------------------------------------------------------------------------------------


def ranges_of(model: Model, given: Ranges) -> dict[str, tuple[float, float]]:
    """Graph input -> its range.

    Args:
        model: the model.
        given: graph input ("" for all float inputs) -> the least and the largest number that it is ever given.

    Raises:
        UsageError: there is no such input, it does not hold floats, or a range is empty.
    """
    floats = [
        value.name
        for value in model.proto.graph.input
        if value.name not in model.stored and value.type.tensor_type.elem_type in WEIGHT_TYPES
    ]
    found: dict[str, tuple[float, float]] = {}
    for name, (low, high) in sorted(given.items()):
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise UsageError(f"{low:g}:{high:g} is no input range", hint="name the least number first, 0:1")
        if name and name not in floats:
            raise UsageError(
                f"{model.name} has no float input {name!r}",
                hint=f"it has: {', '.join(floats)}" if floats else "it has no float input at all",
            )
        found.update(dict.fromkeys([name] if name else floats, (float(low), float(high))))
    return found


def noted(model: Model, ranges: Ranges) -> Model:
    """The model with the range that it holds for among its metadata."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    keep(proto.metadata_props, lambda entry: entry.key != RANGE_KEY)
    entry = proto.metadata_props.add()
    entry.key, entry.value = RANGE_KEY, json.dumps({name: list(ends) for name, ends in ranges.items()})
    return replace(model, proto=proto)


# --- dead matter ------------------------------------------------------------------------------


def tidied(model: Model) -> Model:
    """The model without nodes and initializers that no output depends on."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    remove_dead(proto.graph, model.overridable)
    return replace(model, proto=proto)


def matter(model: Model) -> Counter[str]:
    """How many nodes and initializers there are, those of bodies included."""
    counted = Counter[str]()
    for graph in graphs(model.proto.graph):
        counted["nodes"] += len(graph.node)
        counted["initializers"] += len(graph.initializer) + len(graph.sparse_initializer)
    return counted
