"""The share of zeros that meets budgets: on the parameters that are not zero, and on the bytes of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.allocation.amount import BYTES, COUNTS, Amount, read_amount
from onnxprune.cost import count_nonzeros
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, file_size
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.in_sequence import Sweep
from onnxprune.rewriting import sparse_bytes
from onnxprune.sparsity import SparsifyOptions

# Steps of the search for the share, which then is known to one in so many powers of two.
STEPS = 14
# The largest share that is looked at; some element of every output stays in any case.
MOST = 1 - 2.0**-STEPS


@dataclass(frozen=True)
class ZeroBudget:
    """A budget that zeros are to meet.

    Attributes:
        kind: "params" or "size".
        amount: the most that is allowed.
        now: what the original has.
        saved: what the model has less, for the number of non-zero elements of every weight by name.
    """

    kind: str
    amount: Amount
    now: int
    saved: Callable[[Mapping[str, int]], int]

    def holds(self, nonzeros: Mapping[str, int]) -> bool:
        """Whether it is met."""
        return self.now - self.saved(nonzeros) <= self.amount.limit(self.now)


def share_for(model: Model, sweep: Sweep) -> float | None:
    """Find the smallest share of zeros that meets the budgets.

    Args:
        model: the original.
        sweep: the weights that get zeros, and with its options the budgets.

    Returns:
        The share, as `SparsifyOptions.sparsity`; None where there is no budget.

    Raises:
        UsageError: a budget is no amount.
        GoalMissed: no share meets them all.
    """
    budgets = _budgets(model, sweep)
    if not budgets:
        return None
    low, high = 0.0, MOST
    missed = [budget for budget in budgets if not budget.holds(_nonzeros(sweep, high))]
    if missed:
        budget = missed[0]
        least = budget.now - budget.saved(_nonzeros(sweep, high))
        raise GoalMissed(
            f"--{budget.kind} {budget.amount} cannot be met by zeros: at least {least:,} of {budget.now:,} stay",
            hint="allow more, free weights that --keep or --ratio hold, or remove channels with `onnxprune prune`",
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        counts = _nonzeros(sweep, middle)
        low, high = (low, middle) if all(budget.holds(counts) for budget in budgets) else (middle, high)
    return high


def _nonzeros(sweep: Sweep, share: float) -> dict[str, int]:
    """Name of a weight -> the elements that differ from zero if `share` of all become zero."""
    return {
        weight.name: int(np.count_nonzero(sweep.by_size(weight, part)))
        for weight, part in zip(sweep.weights, sweep.shares(share).values(), strict=True)
    }


def _budgets(model: Model, sweep: Sweep) -> list[ZeroBudget]:
    options: SparsifyOptions = sweep.options
    before = _nonzeros(sweep, 0.0) if options.budgets else {}
    found = []
    if "params" in options.budgets:
        amount = read_amount("--params", COUNTS, options.budgets["params"])
        now = count_nonzeros(sweep.groups, model)
        found.append(ZeroBudget("params", amount, now, lambda left: sum(before[n] - left[n] for n in before)))
    if "size" in options.budgets:
        amount = read_amount("--size", BYTES, options.budgets["size"])
        found.append(ZeroBudget("size", amount, file_size(model), lambda left: _bytes_saved(sweep, left)))
    return found


def _bytes_saved(sweep: Sweep, nonzeros: Mapping[str, int]) -> int:
    """Bytes that sparse storage takes less."""
    saved = 0
    for weight in sweep.weights:
        if weight.is_float:
            stored = sweep.groups.tracing.stored_value(weight.name)
            assert stored is not None
            saved += stored.nbytes - sparse_bytes(stored.size, nonzeros[weight.name], stored.itemsize)
    return saved


def within_budgets(model: Model, sweep: Sweep, clock: Clock) -> Sweep:
    """The sweep with the share of zeros that its budgets ask for."""
    with clock("fitting the budgets"):
        share = share_for(model, sweep)
    if share is None:
        return sweep
    return replace(sweep, options=replace(sweep.options, sparsity=share, params=None, size=None))
