"""Count what a model costs, now and for every number of removed units."""

from onnxprune.cost.axis_lengths import AxisLengths
from onnxprune.cost.counts import Cost
from onnxprune.cost.nonzeros import count_nonzeros

__all__ = ["Cost", "AxisLengths", "count_nonzeros"]
