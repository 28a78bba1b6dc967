"""The plan: units to remove, as JSON that people can read, edit and apply to another export of the same weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from onnxprune.rewriting import plan_json
from onnxprune.rewriting.bypass import BypassStep
from onnxprune.rewriting.factorise import FactoriseStep
from onnxprune.rewriting.removal import Removal
from onnxprune.rewriting.reorder import ReorderStep
from onnxprune.rewriting.rotate import RotateStep
from onnxprune.rewriting.zero_elements import ZeroStep
from onnxprune.tracing import Group, Groups, trace
from onnxprune.typing import Array

_Read = TypeVar("_Read")
_OTHER = "it was made for another model: make one for this with `onnxprune plan`"


@dataclass(frozen=True)
class Step:
    """What one group loses.

    Attributes:
        group: its name.
        remove: indices of what goes, among the `size` parts of the group.
        size: number of parts; equal to `units` unless the group is balanced over several rows.
        units: number of units.
        kind: "channel", "head" or "head dim".
        exact: whether the smaller model equals the original with the weights of removed units set to zero.
        layout: checksum of the positions behind the indices.
        scores: score of every part.
        members: the weight axes that shrink, with the positions that go.
        approximate: why it is not exact; empty where it is.
    """

    group: str
    remove: tuple[int, ...]
    size: int
    units: int
    kind: str = "channel"
    exact: bool = True
    layout: int = 0
    scores: tuple[float, ...] = ()
    members: tuple[Mapping[str, Any], ...] = ()
    approximate: str = ""

    def fields(self) -> dict[str, Any]:
        """The step as `plan_json.parse` returns it, in the order in which it is written."""
        names = ("group", "kind", "exact", "approximate", "units", "size", "remove", "layout", "scores", "members")
        values = ((name, getattr(self, name)) for name in names)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


@dataclass(frozen=True)
class Plan:
    """What to remove from which model.

    Attributes:
        steps: one per group that is known, in graph order; most remove something, none has to.
        source: digest and name of the model that the plan was made for, and the digest of each of several files.
        options: how it was made.
        barriers: what was locked, and why.
        reorders: orders of units, which come before all that follows.
        zeros: elements of weights that become zero, one step for each weight.
        bypasses: blocks that are taken out.
        rotations: directions that take the places of units of what is left then; what `steps` remove are these.
        factors: weights that become products of two.
        origin: the trace that a plan was just made from; `source`, `barriers` and the members of the steps are
            filled in from it when the plan is written.

    Example:
        >>> import onnxprune
        >>> plan = onnxprune.make_plan("models/digits.onnx", 0.5)
        >>> again = onnxprune.Plan.from_json(plan.to_json())
        >>> {name: int(mask.sum()) for name, mask in again.masks("models/digits.onnx").items()}["conv.weight"]
        144
    """

    steps: tuple[Step, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    barriers: tuple[Mapping[str, Any], ...] = ()
    reorders: tuple[ReorderStep, ...] = ()
    zeros: tuple[ZeroStep, ...] = ()
    bypasses: tuple[BypassStep, ...] = ()
    rotations: tuple[RotateStep, ...] = ()
    factors: tuple[FactoriseStep, ...] = ()
    origin: Groups | None = field(default=None, repr=False, compare=False)

    def removed(self, groups: Groups) -> Array:
        """bool[classes]: the classes that go.

        Raises:
            UsageError: the plan does not fit the model; the first mismatch is named.
        """
        if self.origin is not None and self.origin is not groups:
            return _detailed(self, self.origin).removed(groups)
        known = {g.name: g for g in groups.groups}
        removed = np.zeros(groups.classes.count, bool)
        seen: set[str] = set()
        for step in self.steps:
            if step.group in seen:
                raise UsageError(f"the plan does not fit: group {step.group!r} is in it twice")
            seen.add(step.group)
            if step.remove:
                group = known.get(step.group)
                if group is None:
                    raise UsageError(f"the plan does not fit: the model has no group {step.group!r}", hint=_OTHER)
                _check_fit(step, group, groups)
                removed[group.classes[list(step.remove)]] = True
        return removed

    def is_made_for(self, model: Model) -> bool:
        """Whether the plan was made for exactly this content of a model."""
        return self.made_for.get("digest") == model.digest

    @property
    def made_for(self) -> Mapping[str, Any]:
        """Name and digest of the model that the plan was made for, and of its files where it is of several."""
        return source_of(self.origin.model) if self.origin is not None and not self.source else self.source

    def masks(self, source: Any) -> dict[str, np.ndarray]:
        """A boolean keep mask in the original shape for every initializer of `source` that shrinks.

        A constant that several nodes share and that they cut differently has an entry per use, `name@output:slot`.
        """
        return self.element_removal(self.trace(load(source))).masks()

    def element_removal(self, groups: Groups) -> Removal:
        """What goes, as elements of the original's weights.

        Raises:
            UsageError: the plan does not fit the model, or directions go in place of elements.
        """
        if self.rotations:
            raise UsageError(
                f"the plan rotates group {self.rotations[0].group!r}: directions go, not elements of weights",
                hint="plan without --rotate",
            )
        return Removal(groups, self.removed(groups))

    def trace(self, model: Model) -> Groups:
        """Trace `model` in the way in which the plan was made."""
        options = self.options
        return trace(
            model,
            heads=bool(options.get("heads", True)),
            head_dims=bool(options.get("head_dims", False)),
            allow_io_changes=options.get("allow_io_changes", False),
            rows=options.get("rows", ()),
            sizes=options.get("sizes"),
        )

    def to_json(self) -> str:
        """The plan as text: one line per value that a person may edit."""
        if self.origin is not None:
            return _detailed(self, self.origin).to_json()
        steps = [step.fields() for step in self.steps]
        kinds = (self.reorders, self.zeros, self.bypasses, self.rotations, self.factors)
        others = [step.as_json() for listed in kinds for step in listed]
        return plan_json.to_text(self.source, self.options, steps, self.barriers, others)

    @staticmethod
    def from_json(text: str | bytes) -> Plan:
        """Read a plan.

        Raises:
            UsageError: the text is not a plan of a version that is known; the first offence is named by its place.
        """
        raw = plan_json.parse(text)
        steps = tuple(Step(**fields) for fields in raw["steps"])

        def read(kind: str, of: Callable[[Mapping[str, Any], str], _Read]) -> tuple[_Read, ...]:
            others = enumerate(raw["others"])
            return tuple(of(step, f"$.steps[{i}]") for i, step in others if step["kind"] == kind)

        return Plan(
            steps,
            raw["source"],
            raw["options"],
            raw["barriers"],
            reorders=read(plan_json.REORDER, ReorderStep.from_json),
            rotations=read(plan_json.ROTATE, RotateStep.from_json),
            zeros=read(plan_json.ZERO, ZeroStep.from_json),
            bypasses=read(plan_json.BYPASS, BypassStep.from_json),
            factors=read(plan_json.FACTORISE, FactoriseStep.from_json),
        )


def make(
    groups: Groups,
    chosen: Mapping[str, Array],
    scores: Array,
    options: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
) -> Plan:
    """The plan that removes `chosen` (group name -> indices into its classes); `options` as they are written."""
    steps = tuple(
        Step(
            group=group.name,
            remove=tuple(int(i) for i in chosen.get(group.name, ())),
            size=len(group.classes),
            units=group.units,
            kind=group.kind,
            exact=group.exact,
            scores=tuple(scores[group.classes].tolist()),
            approximate=group.approximate,
        )
        for group in groups.groups
    )
    return Plan(steps, options={**options, "sizes": dict(sizes or {})}, origin=groups)


def _detailed(plan: Plan, groups: Groups) -> Plan:
    """The plan with all that a reader, or another machine, wants to know."""
    removal = Removal(groups, plan.removed(groups))
    known = {group.name: (index, group) for index, group in enumerate(groups.groups)}
    steps = []
    for step in plan.steps:
        if step.group not in known:
            steps.append(step)
            continue
        index, group = known[step.group]
        members = tuple(
            {"tensor": m.tensor, "axis": m.axis, "size": m.size, "removed": removal.positions(m, index)}
            for m in group.members
        )
        scores = tuple(float(f"{s:.6g}") for s in step.scores)
        steps.append(replace(step, layout=layout(groups, group), scores=scores, members=members))
    barriers = tuple(
        {
            "reason": b.reason,
            "node": b.node,
            "op": b.op,
            "params": b.params,
            "tensors": sorted({m[0] for m in b.members}),
        }
        for b in groups.barriers
    )
    return replace(
        plan, steps=tuple(steps), source=plan.source or source_of(groups.model), barriers=barriers, origin=None
    )


def source_of(model: Model) -> dict[str, Any]:
    """Name and digest of the model that a plan is made for; of several files, the digest of each, too."""
    files = dict(model.couplings.files)
    named = {"name": model.path.name if model.path else "", "digest": model.digest}
    return named | ({"files": files} if files else {})


def layout(groups: Groups, group: Group) -> int:
    """CRC-32 of the members and of the position of every class on them: what an index of the group means."""
    place = np.full(groups.classes.count, -1, np.int32)
    place[group.classes] = np.arange(len(group.classes), dtype=np.int32)
    check = 0
    for member in group.members:
        labels = groups.tracing.axes[member.key][member.axis]
        found = np.where(labels >= 0, place[groups.classes.of[np.maximum(labels, 0)]], -1).astype("<i4")
        check = zlib.crc32(f"{member.tensor}:{member.axis}:{member.size}".encode(), check)
        check = zlib.crc32(np.ascontiguousarray(found).tobytes(), check)
    return check


def _check_fit(step: Step, group: Group, groups: Groups) -> None:
    where = f"the plan does not fit: group {step.group!r}"
    for given, member in zip(step.members, group.members, strict=False):
        for name, actual in (("tensor", member.tensor), ("axis", member.axis), ("size", member.size)):
            if given.get(name, actual) != actual:
                raise UsageError(
                    f"{where} has {name} {actual!r} in the model, {given[name]!r} in the plan", hint=_OTHER
                )
    if step.size != len(group.classes):
        raise UsageError(f"{where} has {len(group.classes)} parts in the model, {step.size} in the plan")
    if step.layout and step.layout != layout(groups, group):
        raise UsageError(f"{where} lies on other positions of the weights than in the plan")
    indices = np.asarray(step.remove)
    if indices.min() < 0 or indices.max() >= step.size:
        raise UsageError(f"{where} has parts 0 to {step.size - 1}; the plan removes {indices.min()} to {indices.max()}")
    if len(np.unique(indices)) == step.size:
        raise UsageError(f"{where} would lose all of its {step.size} parts", hint="leave at least one unit")
    ends = np.cumsum([len(c) for c in group.cells])
    counts = np.bincount(np.searchsorted(ends, np.unique(indices), "right"), minlength=len(ends))
    shares = counts * group.units // np.array([len(c) for c in group.cells])
    if (shares != shares[0]).any() or (counts * group.units % np.array([len(c) for c in group.cells])).any():
        raise UsageError(
            f"{where} must lose the same share of each of its {len(ends)} rows",
            hint=f"parts 0 to {int(ends[0]) - 1} are the first row, and so on; the plan takes {counts.tolist()[:8]}",
        )
