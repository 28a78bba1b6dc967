"""Which units go: ratios per group or over the whole model, rounding, and what must be left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from onnxprune import criteria, rows
from onnxprune.criteria.between import NORMALIZATIONS, normalized
from onnxprune.criteria.combine import AGGREGATIONS
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.grouping import Group, Groups
from onnxprune.labels import Array

SCOPES = ("uniform", "global")


@dataclass(frozen=True)
class Options:
    """What to prune.

    Attributes:
        ratio: fraction of the units to remove, in [0, 1).
        ratios: glob -> ratio for the groups that it names; the last match wins. A glob names groups, or, where no
            group has such a name, the groups that cut a weight which has.
        criterion: name of a registered criterion, or a function; "auto" is "obs" where there is data, else "l2".
        aggregate: how the scores of a unit's coupled members are combined ("sum", "mean", "max", "norm"); as the
            criterion does it where None.
        normalize: how a global ranking makes the scores of different groups comparable ("mean", "max", "sum",
            "standard", "none"); as the criterion does it where None.
        scope: "uniform" removes the ratio from every group, "global" ranks all units together.
        max_ratio: most that a global ranking takes from one group.
        keep: globs of groups, and of weights, inputs and outputs that are not to be cut along any axis.
        only: globs of the only groups to prune, as for `ratios`; all where empty.
        round_to: the width that remains is a multiple of this.
        heads: attention heads may be removed.
        head_dims: remove dimensions within every head instead of heads.
        exact_only: leave groups alone whose removal changes a norm or mean.
        allow_io_changes: graph inputs and outputs may shrink along the channels of a layer.
        rows: name of a table that ids index, or of a graph output -> the ids of its rows (of the output's classes) to
            keep; ratios leave these rows alone.
        seed: for criteria that draw random numbers.
    """

    ratio: float = 0.5
    ratios: Mapping[str, float] = field(default_factory=dict)
    criterion: str | Callable[..., np.ndarray] = criteria.AUTO
    aggregate: str | None = None
    normalize: str | None = None
    scope: str = "uniform"
    max_ratio: float = 0.9
    keep: Sequence[str] = ()
    only: Sequence[str] = ()
    round_to: int = 1
    heads: bool = True
    head_dims: bool = False
    exact_only: bool = False
    allow_io_changes: bool = False
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in [("ratio", self.ratio), ("max_ratio", self.max_ratio), *self.ratios.items()]:
            if not 0 <= value < 1:
                raise UsageError(
                    f"{name} is {value}, but a ratio is the fraction to remove, at least 0 and below 1",
                    hint="for half of the channels write 0.5",
                )
        for name, globs in (("keep", self.keep), ("only", self.only)):
            if isinstance(globs, str):
                raise UsageError(f"{name} is a text, but must be a list of globs", hint=f"write {name}=[{globs!r}]")
        if self.round_to < 1:
            raise UsageError(f"round_to is {self.round_to}, but must be at least 1")
        for what, chosen, known in (
            ("scope", self.scope, SCOPES),
            ("aggregation", "sum" if self.aggregate is None else self.aggregate, AGGREGATIONS),
            ("normalization", "mean" if self.normalize is None else self.normalize, NORMALIZATIONS),
        ):
            if chosen not in known:
                raise UsageError(f"no {what} is called {chosen!r}", hint=f"known: {', '.join(known)}")

    def settled(self, *, data: bool) -> Options:
        """The options with a criterion that has a name."""
        auto = self.criterion == criteria.AUTO
        return replace(self, criterion=criteria.known(criteria.AUTO, data=data).name) if auto else self

    def as_json(self) -> dict[str, Any]:
        """The options as plain values."""
        plain = asdict(self) | {"ratios": dict(self.ratios), "keep": list(self.keep), "only": list(self.only)}
        plain["rows"] = sorted(self.rows)
        if callable(self.criterion):
            plain["criterion"] = getattr(self.criterion, "__name__", "custom")
        return plain


def touches(group: Group, glob: str) -> bool:
    """Whether `glob` matches the name of the group or of a weight, input or output that it cuts."""
    cut = [m.tensor for m in group.members] + [name for name, _ in group.io]
    return fnmatchcase(group.name, glob) or any(fnmatchcase(name, glob) for name in cut)


def named(groups: Sequence[Group], glob: str) -> frozenset[str]:
    """The groups whose name matches `glob`; where there is none, those that cut a weight whose name does."""
    found = frozenset(g.name for g in groups if fnmatchcase(g.name, glob))
    return found or frozenset(g.name for g in groups if touches(g, glob))


def select(groups: Groups, scores: Array, options: Options) -> dict[str, Array]:
    """The units that go.

    Args:
        groups: the traced model.
        scores: float64[classes].
        options: what to prune.

    Returns:
        Group name -> sorted indices into `group.classes`, for every group that loses something.

    Raises:
        UsageError: a glob matches no group, or rows that are named must stay.
        GoalMissed: there is nothing to prune.
    """
    _check_globs(groups, options)
    only = frozenset().union(*(named(groups.groups, glob) for glob in options.only))
    named_rows, held = rows.removed(groups, options.rows)
    open_groups = [g for g in groups.groups if g.name not in held and _is_open(g, only, options)]
    if not named_rows and not any(g.units > 1 for g in open_groups):
        raise GoalMissed(
            "nothing can be pruned: "
            + ("no group is left by the options" if groups.groups else "no removable group was found"),
            hint="`onnxprune inspect` lists the groups, and the reason for every weight that is locked",
        )
    ranked = {g.name: _ranking(g, scores) for g in open_groups}
    ratios = {name: value for glob, value in options.ratios.items() for name in named(groups.groups, glob)}
    if options.scope == "uniform":
        counts = _uniform(open_groups, ratios, options.ratio)
    else:
        counts = _global(open_groups, ranked, ratios, options)
    removed = dict(named_rows)
    for group in open_groups:
        count = _rounded(group, min(counts[group.name], group.units - 1), options.round_to)
        if count:
            units = ranked[group.name][0][:count]
            removed[group.name] = np.sort(units.reshape(-1))
    return removed


def _check_globs(groups: Groups, options: Options) -> None:
    for option, globs in (("keep", options.keep), ("only", options.only), ("ratios", options.ratios)):
        for glob in globs:
            if not any(touches(g, glob) for g in groups.groups):
                some = ", ".join(repr(g.name) for g in groups.groups[:3])
                raise UsageError(
                    f"{option}: {glob!r} matches no group",
                    hint=f"groups are named like {some}; see `onnxprune inspect`",
                )


def _is_open(group: Group, only: frozenset[str], options: Options) -> bool:
    if options.exact_only and not group.exact:
        return False
    if options.only and group.name not in only:
        return False
    return not any(touches(group, glob) for glob in options.keep)


def _ranking(group: Group, scores: Array) -> tuple[Array, Array]:
    """(int[units, share], float[units]): the units, least important first, as indices into `group.classes`.

    Of several cells a unit takes the next share of every cell, so that all rows stay equal; its score is the mean.
    """
    units, first = group.units, 0
    columns = []
    for cell in group.cells:
        order = np.argsort(scores[cell], kind="stable") + first
        columns.append(order.reshape(units, -1))
        first += len(cell)
    members = np.concatenate(columns, axis=1)
    return members, scores[group.classes][members].mean(axis=1)


def _uniform(groups: Sequence[Group], ratios: Mapping[str, float], ratio: float) -> dict[str, int]:
    return {g.name: int(ratios.get(g.name, ratio) * g.units + 1e-9) for g in groups}


def _global(
    groups: Sequence[Group],
    ranked: Mapping[str, tuple[Array, Array]],
    ratios: Mapping[str, float],
    options: Options,
) -> dict[str, int]:
    """Rank the units of all groups by scores that are made comparable; named ratios stay as they are."""
    counts = _uniform([g for g in groups if g.name in ratios], ratios, options.ratio)
    rest = [g for g in groups if g.name not in ratios]
    if not rest:
        return counts
    how = options.normalize or criteria.known(options.criterion).normalize
    values, owner = [], []
    for index, group in enumerate(rest):
        allowed = min(int(options.max_ratio * group.units + 1e-9), group.units - 1)
        values.append(normalized(ranked[group.name][1], how)[:allowed])
        owner.append(np.full(allowed, index))
    order = np.argsort(np.concatenate(values), kind="stable")
    budget = int(options.ratio * sum(g.units for g in rest) + 1e-9)
    taken = np.bincount(np.concatenate(owner)[order[:budget]], minlength=len(rest))
    return counts | {g.name: int(n) for g, n in zip(rest, taken, strict=True)}


def _rounded(group: Group, count: int, multiple: int) -> int:
    """At most `count`, so that the width which remains on the group's first weight is a multiple."""
    if multiple <= 1 or group.kind == "head":
        return count
    per_unit = max(1, group.members[0].positions // group.units)
    whole = group.members[0].size
    while count > 0 and (whole - count * per_unit) % multiple:
        count -= 1
    return count
