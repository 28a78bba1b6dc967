"""Choose how many units every group loses so that all budgets hold."""

from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import Goal, Selection, select
from onnxprune.allocation.timed import Timing

__all__ = ["Goal", "Options", "Selection", "Timing", "select"]
