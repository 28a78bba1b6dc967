"""Which weights become products, and of which forms and ranks: within the limits, and no slower than the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from onnxprune.allocation.ranks import FactorOption, LowRankOptions, RankChoice, allocate_ranks
from onnxprune.cost import Cost
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, file_size
from onnxprune.pipelines.factor_latency import LATENCY, Products, TimeBudget
from onnxprune.pipelines.factor_sweep import FactorSweep
from onnxprune.pipelines.factor_timing import ProductTimer
from onnxprune.progress import Progress

# Rounds of choosing and timing, each of which leaves out a form of a weight at least.
TIMINGS = 12
# Without data, all weights become products where at least so large a share of them goes.
MUCH = 0.25
TOO_SLOW = "its products are slower than the one"
SLOWER = "nothing to change: products are slower than the weights here"


def chosen_sweeps(
    sweep: FactorSweep, original: tuple[Model, Cost], timer: ProductTimer | None, progress: Progress
) -> list[FactorSweep]:
    """Choose the weights and products to try: some weights whole, and all of them products; one of these without data.

    Args:
        sweep: what may change.
        original: the model and its cost.
        timer: times products; they are not timed where None.
        progress: is told of the timing.

    Returns:
        The sweeps.

    Raises:
        GoalMissed: all weights stay whole.
    """
    choosing = _Choosing(sweep, sweep.choices(original[1]), timer, progress)
    limits = _limits(sweep.options, choosing.choices, original)
    asked = max((1 - most / sum(c.whole[k] for c in choosing.choices) for k, most in limits.items()), default=0.0)
    ways = (True, False) if sweep.runs and choosing.is_limited else (asked < MUCH,)
    found: list[FactorSweep] = []
    for whole in ways:
        products, left = choosing.products(limits, whole=whole)
        if not any(products == other.products for other in found):
            changed = [w for w in sweep.weights if w.name in products]
            found.append(replace(sweep, weights=changed, products=products, left=left))
    return found


@dataclass(frozen=True, eq=False)
class _Choosing:
    """What weights may become.

    Attributes:
        sweep: the weights.
        choices: what each may become.
        timer: times products; they are not timed where None.
        progress: is told of the timing.
    """

    sweep: FactorSweep
    choices: Sequence[RankChoice]
    timer: ProductTimer | None
    progress: Progress

    @property
    def is_limited(self) -> bool:
        """Whether something says how much goes, besides ranks."""
        return self.sweep.options.share is not None or bool(self.sweep.options.budgets)

    def products(self, limits: Mapping[str, float], *, whole: bool) -> tuple[Products, dict[str, str]]:
        """What weights become, and those whose products are too slow, each form of them.

        Raises:
            GoalMissed: all stay whole.
        """
        amount = self.sweep.options.budgets.get(LATENCY)
        if amount is None:
            free, products = self._none_slower(limits, whole=whole)
        else:
            assert self.timer is not None
            free = self._timed
            budget = TimeBudget(self.timer, self.sweep.weights, amount.limit(self.timer.model.before))
            products = budget.products(free, lambda most: _chosen(free, {**limits, LATENCY: most}, whole=whole))
        pairs = zip(self.choices, free, strict=True)
        left = {now.name: TOO_SLOW for was, now in pairs if was.options and not now.options}
        if left and not products:
            raise GoalMissed(SLOWER, hint="--allow-slower takes them anyway")
        if not products:
            raise GoalMissed("nothing to change: no product is smaller", hint="a larger --ratio, or --round-to 1")
        return products, left

    @cached_property
    def _timed(self) -> Sequence[RankChoice]:
        """The choices with the time of each."""
        assert self.timer is not None
        self.progress("timing products")
        slower = self.sweep.options.allow_slower
        return self.timer.timed(self.sweep.weights, self.choices, allow_slower=slower)

    def _none_slower(self, limits: Mapping[str, float], *, whole: bool) -> tuple[Sequence[RankChoice], Products]:
        """The choices that are left, and products of them that are not slower than the weights."""
        products: Products = {}
        free = self.choices
        for _ in range(TIMINGS):
            products = _chosen(free, limits, whole=whole)
            if self.sweep.options.allow_slower or self.timer is None or not products:
                break
            self.progress("timing products")
            slow = self.timer.slower([w for w in self.sweep.weights if w.name in products], products)
            if not slow:
                break
            free = [c.without(products[c.name].form) if c.name in slow else c for c in free]
        return free, products


def _chosen(choices: Sequence[RankChoice], limits: Mapping[str, float], *, whole: bool) -> dict[str, FactorOption]:
    """The products within the limits."""
    return {name: o for name, o in allocate_ranks(choices, limits, whole=whole).items() if o is not None}


def _limits(options: LowRankOptions, choices: Sequence[RankChoice], original: tuple[Model, Cost]) -> dict[str, float]:
    """Kind -> what the chosen weights may cost together: their share, and what a budget that is counted leaves them."""
    limits = dict[str, float]()
    whole = {kind: sum(c.whole[kind] for c in choices) for kind in ("params", "macs", "size")}
    model, cost = original
    totals = {"params": cost.params, "macs": cost.macs, "size": file_size(model)}
    for kind, amount in options.budgets.items():
        if kind == LATENCY:
            continue
        limits[kind] = amount.limit(totals[kind]) - (totals[kind] - whole[kind])
    if options.share is not None:
        limits["params"] = min(limits.get("params", math.inf), (1 - options.share) * whole["params"])
    return limits
