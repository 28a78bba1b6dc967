"""Count what a model costs, now and for every number of removed units."""

from onnxprune.cost.axis_lengths import AxisLengths, units_in_order
from onnxprune.cost.counts import Cost
from onnxprune.cost.energy import estimate_energy
from onnxprune.cost.nonzeros import count_nonzeros

__all__ = ["AxisLengths", "Cost", "count_nonzeros", "estimate_energy", "units_in_order"]
