"""Numbers that stand for sizes which depend on values, such as the number of rows that a mask selects.

A scan at numbers needs one for every axis. No rule takes it for static, since the size beside it is a symbol.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.model import control_flow
from onnxprune.model.shapes.constant_fold import EVALUATORS

# No width of a layer, above the usual kernels, and with several divisors.
STAND_IN = 18
# Entries of an integer tensor that numbers stand for.
MOST_ENTRIES = 64

# What stands for a count, and for a factor.
_VALUES: Mapping[int, np.generic] = {
    TensorProto.INT64: np.int64(STAND_IN),
    TensorProto.INT32: np.int32(STAND_IN),
    TensorProto.FLOAT: np.float32(2),
}

# Operator -> its inputs that say how large an output is, or from where to where a part goes.
_COUNTS: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
    "Loop": (0,),
}
# The same for inputs of which the positions that are taken are computed.
_PLACES: Mapping[str, tuple[int, ...]] = {"Compress": (1,), "Gather": (1,), "GatherND": (1,), "NonZero": (0,)}


def counting(graph: onnx.GraphProto) -> frozenset[str]:
    """The tensors that sizes are computed from."""
    return _behind(graph, _COUNTS)


def placing(graph: onnx.GraphProto) -> frozenset[str]:
    """The tensors that places are computed from."""
    return _behind(graph, _PLACES)


def _behind(graph: onnx.GraphProto, read: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    found: set[str] = set()
    for node in reversed(graph.node):
        slots = () if node.domain else read.get(node.op_type, ())
        if control_flow.is_body_start(node) and control_flow.is_loop(node):
            slots = read.get("Loop", ())
        found.update(node.input[s] for s in slots if s < len(node.input))
        if node.op_type in EVALUATORS and node.op_type != "Size" and not found.isdisjoint(node.output):
            found.update(node.input)
    found.discard("")
    return frozenset(found)


def value_for(dtype: int, shape: tuple[int, ...] | None) -> np.ndarray | None:
    """A value for a small list of numbers that is not known; None for other tensors."""
    if dtype not in _VALUES or shape is None or len(shape) > 1 or np.prod(shape) > MOST_ENTRIES:
        return None
    return np.full(shape, _VALUES[dtype])
