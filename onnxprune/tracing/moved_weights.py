"""Where the elements of a stored weight are behind nodes that only move them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.typing import Array, Shape


@dataclass(frozen=True)
class MovedWeight:
    """A tensor that holds elements of a weight and nothing else.

    Attributes:
        weight: the weight.
        shape: its sizes.
        places: for every element of the tensor, its place in the flat weight; None where only the run knows.
    """

    weight: str
    shape: Shape
    places: Array | None

    def read(self, value: Array) -> Array:
        """The tensor, from the weight."""
        assert self.places is not None
        return value.reshape(-1)[self.places]

    def laid(self, moved: Array) -> Array:
        """A weight from which the tensor `moved` is read; zeros where nothing is."""
        assert self.places is not None
        value = np.zeros(self.shape, moved.dtype)
        value.reshape(-1)[self.places] = np.broadcast_to(moved, self.places.shape)
        return value

    def can_lay(self, moved: Array) -> bool:
        """Whether there is such a weight: elements that are read twice are the same."""
        if self.places is None:
            return False
        return np.array_equal(self.read(self.laid(moved)), np.broadcast_to(moved, self.places.shape))


def places_behind(
    chain: Sequence[onnx.NodeProto],
    shape: Shape,
    others: Mapping[str, Array],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> Array | None:
    """Run nodes that move a tensor on the places of its elements.

    Args:
        chain: the nodes, the first of which reads the tensor.
        shape: sizes of the tensor.
        others: the values of all that they read beside it.
        opsets: the operator sets that they belong to.

    Returns:
        Places, in the shape of what the last node gives; None where that cannot be run.
    """
    from onnx.reference import ReferenceEvaluator

    name, given = chain[0].input[0], {**others}
    given[name] = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in given.items()
    ]
    last = onnx.ValueInfoProto(name=chain[-1].output[0])
    graph = helper.make_graph(list(chain), "moves", infos, [last])
    try:
        model = helper.make_model(graph, opset_imports=list(opsets))
        (found,) = ReferenceEvaluator(model).run(None, given)
    except Exception:  # noqa: BLE001 whatever a node of someone's file raises there: then it is not followed
        return None
    return np.asarray(found) if np.asarray(found).dtype == np.int64 else None
