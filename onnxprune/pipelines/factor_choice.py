"""Which weights become products, and of which forms and ranks: within the limits, and no slower than the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxprune.allocation.ranks import FactorOption, LowRankOptions, RankChoice, allocate_ranks
from onnxprune.cost import Cost
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, file_size
from onnxprune.pipelines.factor_sweep import FactorSweep
from onnxprune.pipelines.factor_timing import slower_products
from onnxprune.progress import Progress
from onnxprune.runtime.bench import Place

# Rounds of choosing and timing, each of which leaves out a form of a weight at least.
TIMINGS = 12
# Without data, all weights become products where at least so large a share of them goes.
MUCH = 0.25
TOO_SLOW = "its products are slower than the one"


def chosen_sweeps(
    sweep: FactorSweep, original: tuple[Model, Cost], place: Place | None, progress: Progress
) -> list[FactorSweep]:
    """Choose the weights and products to try: some weights whole, and all of them products; one of these without data.

    Args:
        sweep: what may change.
        original: the model and its cost.
        place: where products are timed; they are not where None.
        progress: is told of the timing.

    Returns:
        The sweeps.

    Raises:
        GoalMissed: all weights stay whole.
    """
    choices = sweep.choices(original[1])
    limits = _limits(sweep.options, choices, original)
    asked = max((1 - most / sum(c.whole[k] for c in choices) for k, most in limits.items()), default=0.0)
    ways = (True, False) if sweep.runs and limits else (asked < MUCH,)
    found: list[FactorSweep] = []
    for whole in ways:
        products, left = _products(sweep, choices, limits, place, progress, whole=whole)
        if not any(products == other.products for other in found):
            changed = [w for w in sweep.weights if w.name in products]
            found.append(replace(sweep, weights=changed, products=products, left=left))
    return found


def _products(
    sweep: FactorSweep,
    choices: Sequence[RankChoice],
    limits: Mapping[str, float],
    place: Place | None,
    progress: Progress,
    *,
    whole: bool,
) -> tuple[dict[str, FactorOption], dict[str, str]]:
    """What weights become, and those whose products are too slow, each form of them.

    Raises:
        GoalMissed: all stay whole.
    """
    free, products = list(choices), dict[str, FactorOption]()
    for _ in range(TIMINGS):
        products = {name: o for name, o in allocate_ranks(free, limits, whole=whole).items() if o is not None}
        if sweep.options.allow_slower or place is None or not products:
            break
        progress("timing products")
        slow = slower_products([w for w in sweep.weights if w.name in products], products, place)
        if not slow:
            break
        free = [c.without(products[c.name].form) if c.name in slow else c for c in free]
    left = {now.name: TOO_SLOW for was, now in zip(choices, free, strict=True) if was.options and not now.options}
    if not products:
        if left:
            raise GoalMissed(
                "nothing to change: products are slower than the weights here", hint="--allow-slower takes them anyway"
            )
        raise GoalMissed("nothing to change: no product is smaller", hint="a larger --ratio, or --round-to 1")
    return products, left


def _limits(options: LowRankOptions, choices: Sequence[RankChoice], original: tuple[Model, Cost]) -> dict[str, float]:
    """Kind -> what the chosen weights may cost together: their share, and what a budget leaves for them."""
    limits = dict[str, float]()
    whole = {kind: sum(c.whole[kind] for c in choices) for kind in ("params", "macs", "size")}
    model, cost = original
    totals = {"params": cost.params, "macs": cost.macs, "size": file_size(model)}
    for kind, amount in options.budgets.items():
        limits[kind] = amount.limit(totals[kind]) - (totals[kind] - whole[kind])
    if options.share is not None:
        limits["params"] = min(limits.get("params", math.inf), (1 - options.share) * whole["params"])
    return limits
