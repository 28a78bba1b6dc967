"""The options of pruning: everything that a user may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np

from onnxprune import criteria
from onnxprune.allocation.amount import Amount, read_amount
from onnxprune.allocation.kinds import KINDS
from onnxprune.allocation.strategies import STRATEGIES
from onnxprune.criteria import AGGREGATIONS, NORMALIZATIONS
from onnxprune.errors import UsageError
from onnxprune.names import STEP_SCHEDULES

AUTO = "auto"
# Each step scores the whole model again.
MOST_STEPS = 1000
# Each exchange repairs the whole model.
MOST_EXCHANGES = 100_000
# The widest axis that any tensor can have, in effect.
WIDEST = 1 << 31
# A budget on time takes more than this of one group only where it cannot be met otherwise: that a group whose loss
# seems cheap by the tables of a machine is emptied while others are whole is more often an error than a find.
FIRST_RATIO = 0.75


@dataclass(frozen=True)
class Options:
    """What to prune.

    Attributes:
        ratio: fraction of the units to remove, in [0, 1); half where neither it nor a budget is given.
        ratios: glob -> ratio for the groups that it names; the last match wins. A glob names groups, or, where no
            group has such a name, the groups that cut a weight which has.
        criterion: name of a registered criterion, or a function; "auto" is "obs" where there is data,
            else "l2".
        aggregate: how the scores of a unit's coupled members are combined ("sum", "mean", "max", "norm"); as the
            criterion does it where None.
        normalize: how a global ranking makes the scores of different groups comparable ("mean", "max", "sum",
            "standard", "none"); as the criterion does it where None.
        params: budget on the elements of all weights: a number, or a text such as "50%" or "2M".
        macs: budget on multiply-accumulates for one sample: "50%", "2.1G".
        size: budget on the bytes of the file: "50%", "20MB".
        memory: budget on the bytes of activations that lie in memory at once, for one sample.
        latency: budget on the measured time of one run: "60%", "12ms", or a number of seconds.
        allocation: how much every group gives: "uniform" the same share of each, "global" by one ranking of all units,
            "greedy" step by step what does least damage for what it saves, "sensitivity" the least total damage by
            the damage curves; "auto" is "greedy" for budgets where scores say how damage accumulates (obs), "global"
            for other budgets, and "uniform" for a ratio.
        max_ratio: most that any but a plain uniform ratio takes from one group; a budget on latency takes more than
            three quarters of one only where it cannot be met otherwise.
        keep: globs of groups, and of weights, inputs and outputs that are not to be cut along any axis.
        only: globs of the only groups to prune, as for `ratios`; all where empty.
        round_to: the width that remains is a multiple of this; "auto" is what the kernels of the machine like, measured
            for every group. None is "auto" with a budget on latency, else 1.
        heads: attention heads may be removed.
        head_dims: remove dimensions within every head instead of heads.
        exact_only: leave approximate groups alone: removal is more than zero weights.
        allow_io_changes: graph inputs and outputs may shrink along the channels of a layer: all, none, or those that
            globs name.
        rows: name of a table that ids index, or of a graph output -> the ids of its rows (of the output's classes) to
            keep; ratios leave these rows alone.
        seed: for criteria that draw random numbers.
        steps: after each but the last of so many parts of the removal, what is left is repaired and scored again.
        rotate: before units are chosen, turn those that only linear layers make and read to their principal components
            on the data, so that directions go in place of units.
        drop: let whole blocks go, too, where that does less damage for what it saves than units of groups do.
        step_schedule: how large the parts are: "linear" equal, "cubic" large at first (Zhu and Gupta 2017), "geometric"
            the same share of what is left.
        exchanges: try so many exchanges of units between groups at equal cost once budgets are fitted, and keep those
            that bring the outputs of the whole repaired model nearer to the original's.
        cache: path of a file that keeps finished scores, so that another budget for the same model and data starts
            from them; nothing is kept where None.

    Example:
        >>> import onnxprune
        >>> options = onnxprune.Options(macs="50%", keep=["conv.*"])
        >>> options.macs
        '50%'
        >>> onnxprune.Options(keep="conv.*", macs="fast")
        Traceback (most recent call last):
            ...
        onnxprune.errors.UsageError: ...
    """

    ratio: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    criterion: str | Callable[..., np.ndarray] = criteria.AUTO
    aggregate: str | None = None
    normalize: str | None = None
    params: str | float | None = None
    macs: str | float | None = None
    size: str | float | None = None
    memory: str | float | None = None
    latency: str | float | None = None
    allocation: str = AUTO
    max_ratio: float = 0.9
    keep: Sequence[str] = ()
    only: Sequence[str] = ()
    round_to: int | str | None = None
    heads: bool = True
    head_dims: bool = False
    exact_only: bool = False
    allow_io_changes: bool | Sequence[str] = False
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0
    rotate: bool = False
    drop: bool = False
    steps: int = 1
    step_schedule: str = "linear"
    exchanges: int = 0
    cache: str | None = None

    def __post_init__(self) -> None:
        _ = self.budgets  # refused here if they are no amounts
        for name, value in [("ratio", self.share), ("max_ratio", self.max_ratio), *self.ratios.items()]:
            if not isinstance(value, Real) or not 0 <= value < 1:
                raise UsageError(
                    f"{name} is {value!r}, but a ratio is the fraction to remove, at least 0 and below 1",
                    hint="for half of the channels write 0.5",
                )
        for name, globs in ((name, getattr(self, name)) for name in ("keep", "only", "allow_io_changes")):
            if isinstance(globs, str):
                raise UsageError(f"{name} is a text, but must be a list of globs", hint=f"write {name}=[{globs!r}]")
        if not isinstance(self.seed, Integral) or self.seed < 0:
            raise UsageError(f"seed is {self.seed!r}, but must be a whole number of at least 0")
        if not isinstance(self.exchanges, Integral) or not 0 <= self.exchanges <= MOST_EXCHANGES:
            raise UsageError(f"exchanges is {self.exchanges!r}, but must be a whole number from 0 to {MOST_EXCHANGES}")
        if not isinstance(self.steps, Integral) or not 1 <= self.steps <= MOST_STEPS:
            raise UsageError(f"steps is {self.steps!r}, but must be a whole number from 1 to {MOST_STEPS}")
        if self.round_to not in (None, AUTO) and not (isinstance(self.round_to, int) and 1 <= self.round_to <= WIDEST):
            raise UsageError(f"round_to is {self.round_to!r}, but must be from 1 to {WIDEST}, or {AUTO!r}")
        for what, chosen, known in (
            ("allocation", self.allocation, (AUTO, *STRATEGIES)),
            ("aggregation", "sum" if self.aggregate is None else self.aggregate, AGGREGATIONS),
            ("step schedule", self.step_schedule, STEP_SCHEDULES),
            ("normalization", "mean" if self.normalize is None else self.normalize, NORMALIZATIONS),
        ):
            if chosen not in known:
                raise UsageError(f"no {what} is called {chosen!r}", hint=f"known: {', '.join(known)}")

    @cached_property
    def budgets(self) -> Mapping[str, Amount]:
        """What is limited -> to how much."""
        given = {name: getattr(self, name) for name in KINDS}
        return {name: read_amount(name, KINDS[name].unit, value) for name, value in given.items() if value is not None}

    @property
    def is_timed(self) -> bool:
        """Whether a budget limits a quantity that only runs on a machine tell."""
        return any(KINDS[name].is_timed for name in self.budgets)

    @property
    def share(self) -> float:
        """The fraction of the units to remove, whatever the budgets ask for."""
        return self.ratio if self.ratio is not None else 0.0 if self.budgets else 0.5

    @property
    def multiple(self) -> int:
        """What widths are rounded to where that is not measured."""
        return self.round_to if isinstance(self.round_to, int) else 1

    @property
    def is_aligned(self) -> bool:
        """Whether what widths are rounded to is measured."""
        return self.round_to == AUTO or (self.round_to is None and self.is_timed)

    @property
    def caps(self) -> tuple[float, ...]:
        """Most that is taken from one group: at first, and where limits cannot be held otherwise."""
        careful = self.is_timed and self.max_ratio > FIRST_RATIO
        return (FIRST_RATIO, self.max_ratio) if careful else (self.max_ratio,)

    @property
    def strategy(self) -> str:
        """The allocation, with a name."""
        if self.allocation != AUTO:
            return self.allocation
        if not self.budgets:
            return "uniform"
        return "greedy" if criteria.known(self.criterion).accumulates else "global"

    @property
    def policy(self) -> dict[str, Any]:
        """What tracing depends on: keyword arguments of `grouping.trace`."""
        names = ("heads", "head_dims", "allow_io_changes")
        return {name: getattr(self, name) for name in names} | {"rows": tuple(self.rows)}

    @property
    def is_plain(self) -> bool:
        """Whether every group just loses its ratio."""
        return self.strategy == "uniform" and not self.budgets

    def settled(self, *, data: bool) -> Options:
        """The options with a criterion that has a name."""
        if self.criterion != criteria.AUTO:
            return self
        return replace(self, criterion=criteria.known(criteria.AUTO, data=data).name)

    def as_json(self) -> dict[str, Any]:
        """The options as plain values, but for the file of finished scores: it changes no result."""
        plain: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "cache"}
        plain |= {"ratios": dict(self.ratios), "keep": list(self.keep), "only": list(self.only)}
        plain["rows"] = sorted(self.rows)
        if not isinstance(self.allow_io_changes, bool):
            plain["allow_io_changes"] = list(self.allow_io_changes)
        if callable(self.criterion):
            plain["criterion"] = getattr(self.criterion, "__name__", "custom")
        return plain
