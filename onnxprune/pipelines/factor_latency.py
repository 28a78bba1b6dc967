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
        points, too_much, tried = [(before, before)], float("inf"), list[tuple[float, Products]]()
        for _ in range(CORRECTIONS):
            aim = min(expected_at(points, self.most * (1 - noise)), too_much)
            products = choose(aim - rest)
            if not products or any(products == other for _, other in tried):
                break
            taken = (products[c.name].costs if c.name in products else c.whole for c in choices)
            expected, reached = rest + sum(costs[LATENCY] for costs in taken), self._seconds(products)
            tried.append((reached, products))
            points.append((reached, expected))
            if reached > self.most:
                too_much = min(too_much, expected * (1 - SAME))
            elif reached >= self.most * (1 - CLOSE):
                break
        return self._best(tried)

    def _best(self, tried: Sequence[tuple[float, Products]]) -> Products:
        met = [pair for pair in tried if pair[0] <= self.most]
        reached, products = max(met, key=_first) if met else min(tried, key=_first, default=(float("inf"), {}))
        if reached >= self.timer.model.before:
            raise GoalMissed("nothing to change: no products are faster than the weights here")
        return products

    def _seconds(self, products: Products) -> float:
        """Seconds of a run of the model with products whose numbers are drawn."""
        drawn = [drawn_factors(w, products[w.name]) for w in self.weights if w.name in products]
        return self.timer.model.seconds(with_factors(self.timer.groups, drawn))


def _first(pair: tuple[float, Products]) -> float:
    return pair[0]
