"""Choose how many units every group loses so that all budgets hold."""

from onnxprune.allocation.blockers import blocking_options
from onnxprune.allocation.kinds import KINDS, BudgetKind
from onnxprune.allocation.lazy_greedy import LazyGreedy
from onnxprune.allocation.options import Options
from onnxprune.allocation.parts import PricedPart, cheapest_part
from onnxprune.allocation.selection import BudgetResult, Selection, max_counts, select
from onnxprune.allocation.timed import BudgetFitter

__all__ = [
    "KINDS",
    "BudgetKind",
    "BudgetResult",
    "Options",
    "Selection",
    "BudgetFitter",
    "LazyGreedy",
    "PricedPart",
    "blocking_options",
    "cheapest_part",
    "max_counts",
    "select",
]
