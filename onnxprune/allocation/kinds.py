"""Kinds of budgets: one record for every quantity that a budget can limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxprune.allocation.amount import BYTES, COUNTS, SECONDS, Unit
from onnxprune.cost import AxisLengths, counts, functions
from onnxprune.cost.functions import CostFunction
from onnxprune.model import Model, file_size
from onnxprune.rewriting import Removal
from onnxprune.typing import Array

# Relative difference of two measurements of a ratio of times, on a machine that does other things too.
NOISE = 0.015


@dataclass(frozen=True)
class BudgetKind:
    """A quantity that budgets limit; a field of `Options` of the same name holds the budget.

    Attributes:
        name: of the kind.
        label: the quantity in a report.
        unit: how amounts are written.
        cost: makes the quantity a function of how many units every group loses.
        measured: measures the quantity on a model that was cut; None where `cost` is exact.
        is_timed: only runs on a machine tell the quantity; `cost` stands in, until the functions of a machine replace
            the functions here (`Timing.kinds`).
        noise: relative difference of two measurements; the limit less the noise is aimed at.
        correct: corrects `cost` by a model that was cut, and the numbers of units that its groups have lost.
        original: what the original costs; None where that is `cost` of nothing removed, as it is but for a model in
            place of which another one runs.
    """

    name: str
    label: str
    unit: Unit
    cost: Callable[[AxisLengths], CostFunction]
    measured: Callable[[Model, Removal], float] | None = None
    is_timed: bool = False
    noise: float = 0.0
    correct: Callable[[Model, Array], None] | None = None
    original: Callable[[], float] | None = None


# Copies of shared weights, biases that recovery adds, and the rest of a file are no functions of widths: parameters
# and bytes of the file are measured.
_ALL = (
    BudgetKind(
        "params",
        "params",
        COUNTS,
        functions.params,
        measured=lambda model, removal: counts.of_trace(removal.groups.tracing, model, removal.size).params,
    ),
    BudgetKind("macs", "MACs", COUNTS, functions.macs),
    BudgetKind("size", "file", BYTES, functions.size, measured=lambda model, removal: file_size(model)),
    BudgetKind("memory", "activations", BYTES, functions.memory),
    BudgetKind("latency", "latency", SECONDS, functions.macs, is_timed=True, noise=NOISE),
)
# Name -> kind.
KINDS: dict[str, BudgetKind] = {kind.name: kind for kind in _ALL}
