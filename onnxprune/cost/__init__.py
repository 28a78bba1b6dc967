"""Count what a model costs, now and for every number of removed units."""

from onnxprune.cost.axis_lengths import AxisLengths
from onnxprune.cost.counts import Cost

__all__ = ["Cost", "AxisLengths"]
