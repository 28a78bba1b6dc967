"""Models with the operators that are timed."""

from __future__ import annotations

from onnxprune import criteria
from onnxprune.cost import AxisLengths
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.runtime import Setting
from onnxprune.tracing import trace

ONE = Setting(threads=1)


def traced(model):
    groups = trace(model)
    scores = criteria.score(groups, "l2", 0, [])
    return groups, AxisLengths(groups, {g.name: units_in_order(g, scores) for g in groups.groups})


NODES = {"relu1": 2e-3, "relu2": 5e-3, "pool": 1e-3, "conv3": 0.5e-3, "": 0.25e-3}
