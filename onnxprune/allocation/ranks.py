"""What becomes of every layer, so that all budgets hold and the least energy is lost.

A layer either stays whole or becomes a product of a form and of ranks. For a price of one unit of cost, every layer
takes what has the least sum of the energy that it loses and the price of its costs; the price is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from onnxprune.allocation.amount import Amount, read_amount
from onnxprune.allocation.kinds import KINDS
from onnxprune.errors import UsageError
from onnxprune.names import FACTOR_FORMS, LOW_RANK_METHODS, RANK_BUDGETS
from onnxprune.rewriting import FactoriseStep
from onnxprune.typing import Array

# How directions are found: by the inputs' second moments, by their sizes alone, by the weights alone.
AUTO, WHITENED, SCALED, PLAIN = LOW_RANK_METHODS
# The multiple that ranks are rounded to, and the fewest ranks that are left to choose from before it is halved.
MULTIPLE, CHOICES = 16, 4
BISECTIONS = 60
# What a limit counts as that is used up already.
LEAST = 1e-9


@dataclass(frozen=True, kw_only=True)
class LowRankOptions:
    """Which weights become products, and of what rank.

    Attributes:
        ratio: share of the elements of all chosen weights that goes; half if nothing says how many.
        ranks: glob of weights or nodes -> their rank.
        only: globs of weights or nodes that alone are changed; all where empty.
        keep: globs of those that stay.
        params: budget on the elements of all weights.
        macs: budget on multiply-accumulates for one sample.
        size: budget on the bytes of the file.
        latency: budget on the measured time of a run.
        forms: those of `FACTOR_FORMS` that a product may have; all where empty, and "channel" for weights whose rank is
            asked for.
        round_to: ranks are multiples of this; of 16 where None, of less where a layer is narrow.
        method: one of `LOW_RANK_METHODS`; "auto" is "whitened" with data, else "plain".
        in_sequence: fit every layer on the inputs that the changed model gives.
        recover: fit the factors to the original's outputs, where there is data.
        allow_slower: take products that are measured to be slower than the weight, too.
        steps: directions that a plan says; what else is here does not choose any then.
    """

    ratio: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    only: Sequence[str] = ()
    keep: Sequence[str] = ()
    params: Any = None
    macs: Any = None
    size: Any = None
    latency: Any = None
    forms: Sequence[str] = ()
    round_to: int | None = None
    method: str = AUTO
    in_sequence: bool = True
    recover: bool = True
    allow_slower: bool = False
    steps: Sequence[FactoriseStep] = ()

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise UsageError(f"--ratio: {self.ratio:g} is not at least 0 and below 1", hint="write 0.5 or 50%")
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"--round-to: {self.round_to} is not positive")
        if self.method not in LOW_RANK_METHODS:
            raise UsageError(
                f"--method: nothing is called {self.method!r}", hint="known: " + ", ".join(LOW_RANK_METHODS)
            )
        for form in self.forms:
            if form not in FACTOR_FORMS:
                raise UsageError(f"--form: nothing is called {form!r}", hint="known: " + ", ".join(FACTOR_FORMS))
        for name, rank in self.ranks.items():
            if rank < 1:
                raise UsageError(f"--rank: {name}={rank} is not positive")
        _ = self.budgets

    @property
    def budgets(self) -> dict[str, Amount]:
        """Kind -> what a model may have of it at most."""
        given = {name: getattr(self, name) for name in RANK_BUDGETS}
        return {name: read_amount(name, KINDS[name].unit, v) for name, v in given.items() if v is not None}

    @property
    def share(self) -> float | None:
        """The share of the chosen weights' elements that goes; None where budgets or ranks alone say it."""
        return 0.5 if self.ratio is None and not self.budgets and not self.ranks else self.ratio

    def rank_of(self, *names: str) -> int | None:
        """The rank that is asked for a weight, by its name or its node's; None where there is none."""
        found = None
        for glob, rank in self.ranks.items():
            found = rank if any(fnmatchcase(name, glob) for name in names) else found
        return found

    def as_json(self) -> dict[str, Any]:
        """The options as a plan holds them."""
        budgets = {name: str(amount) for name, amount in self.budgets.items()}
        return {
            "ratio": self.share,
            "ranks": dict(self.ranks),
            **budgets,
            "forms": list(self.forms),
            "method": self.method,
            "only": list(self.only),
            "keep": list(self.keep),
        }


@dataclass(frozen=True)
class FactorOption:
    """A product that a layer may become.

    Attributes:
        form: one of `FACTOR_FORMS`.
        ranks: how many directions go between its factors.
        costs: kind of budget -> what it costs.
        lost: the share of the energy of the layer's outputs that it loses.
    """

    form: str
    ranks: tuple[int, ...]
    costs: Mapping[str, float]
    lost: float


@dataclass(frozen=True, eq=False)
class RankChoice:
    """What one layer may become.

    Attributes:
        name: of the weight.
        whole: kind of budget -> what it costs as it is.
        options: the products that it may become.
        fixed: whether it may not stay whole, as a rank is asked for.
    """

    name: str
    whole: Mapping[str, float]
    options: Sequence[FactorOption]
    fixed: bool = False

    def without(self, form: str) -> RankChoice:
        """The same without the products of a form; the layer may stay whole then."""
        return replace(self, options=[o for o in self.options if o.form != form], fixed=False)


def multiple_for(largest: int, wanted: int | None) -> int:
    """The multiple of a layer's ranks: what is wanted, else 16, or less where few ranks would be left."""
    if wanted is not None:
        return wanted
    multiple = MULTIPLE
    while multiple > 1 and largest // multiple < CHOICES:
        multiple //= 2
    return multiple


def allocate_ranks(
    choices: Sequence[RankChoice], limits: Mapping[str, float], *, whole: bool = True
) -> dict[str, FactorOption | None]:
    """Find the products that lose the least energy within all limits.

    Args:
        choices: the layers.
        limits: kind of budget -> what all layers together may cost.
        whole: layers may stay whole. Where much goes, it is better if all give something: the energy of a layer's
            outputs does not say how much depends on them.

    Returns:
        Name -> product, None for a weight that stays whole; as little as can be had where the limits cannot be held.
    """
    tables = [_Table.of(choice, limits, whole=whole) for choice in choices]

    def holds(price: float) -> bool:
        totals = sum((table.costs[table.cheapest(price)] for table in tables), np.zeros(len(limits)))
        return bool((totals <= 1 + 1e-9).all())

    low, high = -30.0, 30.0
    if holds(0.0):
        high = -math.inf
    for _ in range(BISECTIONS if high > low else 0):
        middle = (low + high) / 2
        if holds(math.exp(middle)):
            high = middle
        else:
            low = middle
    return {table.name: table.options[table.cheapest(math.exp(high))] for table in tables}


@dataclass(frozen=True, eq=False)
class _Table:
    """What a layer may become; costs are shares of the limits, [options, kinds]."""

    name: str
    options: Sequence[FactorOption | None]
    lost: Array
    costs: Array

    @staticmethod
    def of(choice: RankChoice, limits: Mapping[str, float], *, whole: bool) -> _Table:
        """The products of a layer, and the layer as it is where it may stay so."""
        stays = not choice.options or (whole and not choice.fixed)
        options = [*([None] if stays else []), *choice.options]
        costs = [
            [(choice.whole if o is None else o.costs)[k] / max(most, LEAST) for k, most in limits.items()]
            for o in options
        ]
        lost = np.array([0.0 if o is None else o.lost for o in options])
        return _Table(choice.name, options, lost, np.array(costs).reshape(len(options), len(limits)))

    def cheapest(self, price: float) -> int:
        """The place of what has the least sum of lost energy and the price of its costs."""
        return int(np.argmin(self.lost + price * self.costs.sum(axis=1)))
