"""Interval bounds: between which numbers every element of every tensor lies, whatever the inputs are.

Bounds go through the graph in its order. What an operator does to them is a trait (`model/traits.py`), so that no
operator has code of its own here:

* what is computed from constants alone is run, and so is every position of an elementwise operator whose inputs are
  known there, to the number;
* where an output rises with its inputs (Relu, a pooling, a layout), the operator is run on the lower and on the upper
  ends;
* where it is a multiple and a constant of an input (a product with a scale, an inference norm), its extremes are at the
  ends of that input;
* a sum of products of a in [c - r, c + r] and b in [d - s, d + s] lies around the one of c and d, at most
  |c| s + r (|d| + s) away (all sums and products taken by the operator itself);
* a row that is looked up lies between the least and the largest entries of its column;
* of everything else nothing is known.

Inputs are anything at all, but where a range is declared. Source: Gowal et al., "On the Effectiveness of Interval Bound
Propagation for Training Verifiably Robust Models", 2018, section 3.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.criteria.bound_rules import BIG, FAR, BoundedNode, Bounds
from onnxprune.errors import OnnxPruneError
from onnxprune.model import control_flow
from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.runtime import NodeRunner, in_single
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Ranges

logger = logging.getLogger(__name__)

# Elements of a tensor whose bounds are followed.
LARGEST = 1 << 26


def bounds_of(groups: Groups, ranges: Ranges, wanted: Collection[str], tolerance: float = 0.0) -> Mapping[str, Bounds]:
    """The bounds of the tensors `wanted`, where anything is known of them.

    Args:
        groups: the traced model.
        ranges: graph input -> the least and the largest number that it is ever given.
        wanted: names of tensors of the flat graph, weights included.
        tolerance: weights of at most this size count as zero.

    Returns:
        Name -> bounds, at the sizes of the trace.
    """
    walk = _Walk(groups, tolerance)
    graph = groups.tracing.model.proto.graph
    left = Counter(name for node in graph.node for name in {*node.input})
    for value in graph.input:
        if value.name in ranges:
            low, high = (np.asarray(end, np.float32) for end in ranges[value.name])
            walk.put(value.name, low, high)
    for node in graph.node:
        walk.node(node)
        for name in {*node.input}:
            left[name] -= 1
            if not left[name] and name not in wanted:
                walk.known.pop(name, None)
    found = {name: walk.of(name) for name in wanted}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


@dataclass
class _Walk:
    """A pass in graph order."""

    groups: Groups
    tolerance: float
    known: dict[str, Bounds] = field(default_factory=dict)

    def of(self, name: str) -> Bounds | None:
        """The bounds of a tensor; None where nothing is known of it."""
        if name in self.known:
            return self.known[name]
        value = self.value(name)
        return None if value is None else Bounds(value, value)

    def value(self, name: str) -> Array | None:
        """The constant that a tensor is; None where it is none."""
        tracing = self.groups.tracing
        if tracing.is_overridable(name):
            return None
        if name in tracing.static.example_values and tracing.static.dtypes.get(name) not in WEIGHT_TYPES:
            return np.asarray(tracing.static.example_values[name])
        value = tracing.stored_value(name) if name in tracing.given else None
        if value is None:
            return None
        value = in_single(value)
        return np.where(np.abs(value) > self.tolerance, value, 0) if self.tolerance and value.size > 1 else value

    def put(self, name: str, low: Array, high: Array) -> None:
        """Note the bounds of a tensor, as few numbers as it takes."""
        shape = self.groups.static.shapes.get(name)
        if shape is None or low.dtype.kind not in "fiub":
            return
        with np.errstate(invalid="ignore"):
            low = np.where(~(low > -FAR), -BIG, low).astype(low.dtype) if low.dtype.kind == "f" else low
            high = np.where(~(high < FAR), BIG, high).astype(high.dtype) if high.dtype.kind == "f" else high
        low, high = (end.reshape((1,) * (len(shape) - end.ndim) + end.shape) for end in (low, high))
        low, high = np.broadcast_arrays(low, high)
        for axis in range(low.ndim):
            first = (slice(None),) * axis + (slice(0, 1),)
            if low.shape[axis] > 1 and (low == low[first]).all() and (high == high[first]).all():
                low, high = low[first], high[first]
        self.known[name] = Bounds(np.asarray(low, order="C"), np.asarray(high, order="C"))

    def node(self, node: onnx.NodeProto) -> None:
        """Bound what a node makes."""
        static, names = self.groups.static, [name for name in node.output if name]
        if control_flow.is_body_start(node) or control_flow.is_flat(node) or not names:
            return
        sizes = [static.shapes.get(name) for name in (*names, *filter(None, node.input))]
        if any(size is None or np.prod(size, dtype=float) > LARGEST for size in sizes):
            return
        try:
            BoundedNode(self, node, NodeRunner(self.groups.tracing.model, node)).bound()
        except (OnnxPruneError, ValueError, TypeError) as error:  # of what cannot be run alone nothing is known
            logger.debug("no bounds behind %s %r: %s", node.op_type, node.name, error)
