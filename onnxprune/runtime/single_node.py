"""One node of a graph, run alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model import Model
from onnxprune.runtime.session import Session
from onnxprune.typing import Array

# Elements of a list of numbers that says sizes.
SMALL = 8


class NodeRunner:
    """A node that is run alone; half precision is run in single."""

    def __init__(self, model: Model, node: onnx.NodeProto) -> None:
        self._model, self._node = model, node
        self._sessions: dict[tuple[object, ...], Session] = {}

    def __call__(self, given: Mapping[int, Array]) -> Sequence[Array]:
        """The outputs for inputs by their slots; the others are left out.

        Raises:
            RunError: the runtime refuses it.
        """
        values = {f"i{slot}": in_single(value) for slot, value in given.items()}
        # Sizes and indices, which the runtime wants to see beforehand.
        fixed = {n: v for n, v in values.items() if v.ndim < 2 and (v.dtype.kind in "iub" or v.size <= SMALL)}
        key = tuple((n, v.dtype.str, v.ndim, fixed[n].tobytes() if n in fixed else b"") for n, v in values.items())
        if key not in self._sessions:
            self._sessions[key] = Session(self._alone(values, fixed), threads=1, optimised=False)
        with np.errstate(all="ignore"):
            ran = self._sessions[key].run({n: v for n, v in values.items() if n not in fixed})
        return [in_single(value) for value in _in_order(self._node, ran)]

    def _alone(self, values: Mapping[str, Array], fixed: Mapping[str, Array]) -> Model:
        node = onnx.NodeProto()
        node.CopyFrom(self._node)
        last = max((int(name[1:]) for name in values), default=-1)
        node.input[:] = [f"i{s}" if f"i{s}" in values else "" for s in range(last + 1)]
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim)
            for n, v in values.items()
            if n not in fixed
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in fixed.items()]
        graph = helper.make_graph([node], "node", inputs, outputs, stored)
        proto = self._model.proto
        return Model(helper.make_model(graph, opset_imports=proto.opset_import, ir_version=max(4, proto.ir_version)))


def _in_order(node: onnx.NodeProto, ran: Sequence[Array]) -> Iterator[Array]:
    """What ran, with an empty array for every output that is not asked for."""
    made = iter(ran)
    return (np.asarray(next(made)) if name else np.empty(0) for name in node.output)


def in_single(value: Array) -> Array:
    """Half precision as single.

    Args:
        value: an array of any type.

    Returns:
        The same in float32 if it is of half precision, else unchanged.
    """
    value = np.asarray(value)
    return value.astype(np.float32) if value.dtype.itemsize == 2 and value.dtype.kind in "fV" else value
