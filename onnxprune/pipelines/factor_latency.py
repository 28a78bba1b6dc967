"""Products within a budget on time: chosen by what each layer takes alone, corrected by what the whole model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnxprune.allocation import KINDS
from onnxprune.allocation.fit_budgets import CLOSE, CORRECTIONS, SAME, expected_at
from onnxprune.allocation.ranks import FactorOption, RankChoice
from onnxprune.errors import GoalMissed
from onnxprune.pipelines.factor_timing import ProductTimer, drawn_factors
from onnxprune.rewriting.factorise import FactorisableWeight, with_factors
from onnxprune.runtime.paired_timing import TimeRatio

LATENCY = "latency"
Products = Mapping[str, FactorOption]


@dataclass(frozen=True, eq=False)
class TimeBudget:
    """A budget on the time of a run, and what measures it.

    Attributes:
        timer: times the model, and what is made of it.
        weights: what may become products.
        most: seconds of a run.
    """

    timer: ProductTimer
    weights: Sequence[FactorisableWeight]
    most: float

    def products(self, choices: Sequence[RankChoice], choose: Callable[[float], Products]) -> Products:
        """Choose products, measure the model that they make, and choose again by what was measured.

        Args:
            choices: what the layers may become, with the time of each.
            choose: gives the products whose layers take some seconds together at most.

        Returns:
            Those of the slowest model within the budget, else of the fastest.

        Raises:
            GoalMissed: no model is measured to be faster than the original.
        """
        before, noise = self.timer.model.before, KINDS[LATENCY].noise
        rest = before - sum(choice.whole[LATENCY] for choice in choices)
        points, too_much, tried = [(before, before)], float("inf"), list[tuple[TimeRatio, Products]]()
        for _ in range(CORRECTIONS):
            aim = min(expected_at(points, self.most * (1 - noise)), too_much)
            products = choose(aim - rest)
            if not products or any(products == other for _, other in tried):
                break
            taken = (products[c.name].costs if c.name in products else c.whole for c in choices)
            expected, ratio = rest + sum(costs[LATENCY] for costs in taken), self._measured(products)
            reached = before * ratio.value
            tried.append((ratio, products))
            points.append((reached, expected))
            if reached > self.most:
                too_much = min(too_much, expected * (1 - SAME))
            elif reached >= self.most * (1 - CLOSE):
                break
        return self._best(tried)

    def _best(self, tried: Sequence[tuple[TimeRatio, Products]]) -> Products:
        faster = [pair for pair in tried if pair[0].is_faster]
        if not faster:
            raise GoalMissed("nothing to change: no products are measured to be faster than the weights here")
        met = [pair for pair in faster if self.timer.model.before * pair[0].value <= self.most]
        return (max(met, key=_time) if met else min(faster, key=_time))[1]

    def _measured(self, products: Products) -> TimeRatio:
        """The time of a run of the model with products whose numbers are drawn."""
        drawn = [drawn_factors(w, products[w.name]) for w in self.weights if w.name in products]
        return self.timer.model.compared(with_factors(self.timer.groups, drawn))


def _time(pair: tuple[TimeRatio, Products]) -> float:
    return pair[0].value
