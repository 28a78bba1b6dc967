"""How many directions every layer keeps, so that all budgets hold and the least energy is lost.

A layer either stays whole or becomes a product of a rank r. For a price of one unit of cost, every layer takes the rank
with the least sum of the energy that it loses and the price of what it costs; the price is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from onnxprune.allocation.amount import Amount, read_amount
from onnxprune.allocation.kinds import KINDS
from onnxprune.errors import UsageError
from onnxprune.names import LOW_RANK_METHODS, RANK_BUDGETS
from onnxprune.rewriting import FactoriseStep
from onnxprune.typing import Array

# How directions are found: by the inputs' second moments, by their sizes alone, by the weights alone.
AUTO, WHITENED, SCALED, PLAIN = LOW_RANK_METHODS
# The multiple that ranks are rounded to, and the fewest ranks that are left to choose from before it is halved.
MULTIPLE, CHOICES = 16, 4
BISECTIONS = 60


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
            "method": self.method,
            "only": list(self.only),
            "keep": list(self.keep),
        }


@dataclass(frozen=True, eq=False)
class RankChoice:
    """What one layer may become.

    Attributes:
        name: of the weight.
        sizes: inputs D and outputs O.
        lost: float64[ranks + 1], the share of its energy that is lost with the first 0, 1, ... directions.
        costs: kind of budget -> (what it costs whole, what it costs for each direction).
        fixed: the rank that is asked for; None to choose.
        multiple: ranks are multiples of this.
    """

    name: str
    sizes: tuple[int, int]
    lost: Array
    costs: Mapping[str, tuple[float, float]]
    fixed: int | None = None
    multiple: int = 1

    @property
    def largest(self) -> int:
        """The largest rank with fewer elements than the weight."""
        inner, outer = self.sizes
        return (inner * outer - 1) // (inner + outer)

    @property
    def allowed_ranks(self) -> Array:
        """The ranks to choose from; 0 stands for the whole weight."""
        if self.fixed is not None:
            return np.array([self.fixed if self.fixed <= self.largest else 0])
        return np.concatenate([[0], np.arange(self.multiple, self.largest + 1, self.multiple)]).astype(int)

    def cost(self, kind: str, rank: int) -> float:
        """What it costs with a rank; 0 is whole."""
        whole, each = self.costs[kind]
        return whole if rank == 0 else each * rank

    def loss(self, rank: int) -> float:
        """The share of its energy that it loses."""
        return 0.0 if rank == 0 else float(self.lost[min(rank, len(self.lost) - 1)])


def multiple_for(largest: int, wanted: int | None) -> int:
    """The multiple of a layer's ranks: what is wanted, else 16, or less where few ranks would be left."""
    if wanted is not None:
        return wanted
    multiple = MULTIPLE
    while multiple > 1 and largest // multiple < CHOICES:
        multiple //= 2
    return multiple


def allocate_ranks(choices: Sequence[RankChoice], limits: Mapping[str, float], *, whole: bool = True) -> dict[str, int]:
    """Find the ranks that lose the least energy within all limits.

    Args:
        choices: the layers.
        limits: kind of budget -> what all layers together may cost.
        whole: layers may stay whole. Where much goes, it is better if all give something: the energy of a layer's
            outputs does not say how much depends on them.

    Returns:
        Name -> rank, 0 for a weight that stays whole; as little as can be had where the limits cannot be held.
    """

    def chosen(price: float) -> dict[str, int]:
        return {c.name: _cheapest(c, price, limits, whole=whole) for c in choices}

    def holds(ranks: Mapping[str, int]) -> bool:
        totals = {k: sum(c.cost(k, ranks[c.name]) for c in choices) for k in limits}
        return all(totals[kind] <= most * (1 + 1e-9) for kind, most in limits.items())

    if holds(found := chosen(0.0)):
        return found
    low, high = -30.0, 30.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if holds(chosen(math.exp(middle))):
            high = middle
        else:
            low = middle
    return chosen(math.exp(high))


def _cheapest(choice: RankChoice, price: float, limits: Mapping[str, float], *, whole: bool) -> int:
    ranks = choice.allowed_ranks if whole or len(choice.allowed_ranks) == 1 else choice.allowed_ranks[1:]
    worth = [
        choice.loss(int(r)) + price * sum(choice.cost(k, int(r)) / max(most, 1.0) for k, most in limits.items())
        for r in ranks
    ]
    return int(ranks[int(np.argmin(worth))])
