"""Elements of weights set to zero: where they are stored, what they become, and how they are written down."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.model.graph import constant_value
from onnxprune.model.protos import copy_without, keep
from onnxprune.rewriting.plan_json import ZERO, expect
from onnxprune.rewriting.removal import Removal
from onnxprune.rewriting.rewrite import nested, rewritten
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# Bytes of the place of one element in a sparse initializer, and of all that is written around one, at most.
PLACE, FRAME = 8, 128
# What ONNX Runtime makes dense again when it loads a model.
_SPARSE_TYPES = frozenset(
    (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8)
)
_OTHER = "the plan was made for another model"


@dataclass(frozen=True, eq=False)
class ZeroStep:
    """The elements of one weight that become zero.

    Attributes:
        tensor: name of the stored weight.
        keep: bool of its shape, true where an element stays; number by number where several share a byte.
        pattern: how they were chosen to lie: "unstructured", "2:4", "block 4x4".
    """

    tensor: str
    keep: Array = field(repr=False)
    pattern: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data; the mask is one bit for each element, compressed."""
        bits = zlib.compress(np.packbits(self.keep.reshape(-1)).tobytes(), 9)
        return {
            "kind": ZERO,
            "tensor": self.tensor,
            "shape": list(self.keep.shape),
            "zeros": int(self.keep.size - np.count_nonzero(self.keep)),
            "pattern": self.pattern,
            "keep": base64.b64encode(bits).decode("ascii"),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any], where: str) -> ZeroStep:
        """Read a step.

        Raises:
            UsageError: it is none; the first offence is named by its place.
        """
        shape = raw.get("shape")
        expect(isinstance(raw.get("tensor"), str), "must be a text", f"{where}.tensor")
        sizes = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
        expect(sizes, "must be a list of positive integers", f"{where}.shape")
        assert isinstance(shape, list)
        size = math.prod(shape)
        try:
            decoder = zlib.decompressobj()
            bits = decoder.decompress(base64.b64decode(raw.get("keep", ""), validate=True), -(-size // 8) + 1)
        except (binascii.Error, zlib.error, TypeError, ValueError):
            bits = b""
        expect(len(bits) == -(-size // 8), f"must be {size} bits, compressed and in base64", f"{where}.keep")
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=size).astype(bool)
        expect(
            raw.get("zeros", size - flat.sum()) == size - flat.sum(), "must be the zeros of 'keep'", f"{where}.zeros"
        )
        return ZeroStep(raw["tensor"], flat.reshape(shape), str(raw.get("pattern", "")))


def check_zeros(groups: Groups, steps: Collection[ZeroStep]) -> None:
    """Refuse steps that do not fit a model.

    Args:
        groups: the traced model.
        steps: the zeros of a plan.

    Raises:
        UsageError: a weight is not there, or has another shape.
    """
    for step in steps:
        shape = groups.static.shapes.get(step.tensor)
        if not groups.tracing.is_weight(step.tensor) or step.tensor not in groups.tracing.given or shape is None:
            raise UsageError(f"the plan does not fit: the model has no weight {step.tensor!r}", hint=_OTHER)
        shape = groups.tracing.element_shape(step.tensor)
        if shape != step.keep.shape:
            found = f"{list(shape)} in the model, {list(step.keep.shape)} in the plan"
            raise UsageError(f"the plan does not fit: weight {step.tensor!r} is {found}", hint=_OTHER)


def with_dense(groups: Groups, names: Collection[str]) -> Model:
    """The traced model, flat as it was traced, with some of its weights as dense initializers.

    Args:
        groups: the traced model.
        names: stored weights: initializers, sparse ones, values of `Constant` nodes.

    Returns:
        A model whose graph must be copied before it is changed.
    """
    flat = groups.tracing.model
    if flat is not groups.model:
        flat = rewritten(Removal(groups, np.zeros(groups.classes.count, bool)))
    moved = [name for name in names if name not in flat.initializers]
    if not moved:
        return flat
    proto = copy_without(flat.proto, "node", "sparse_initializer")
    proto.graph.node.extend(n for n in flat.proto.graph.node if n.op_type != "Constant" or n.output[0] not in moved)
    proto.graph.sparse_initializer.extend(s for s in flat.proto.graph.sparse_initializer if s.values.name not in moved)
    nodes = {node.output[0]: node for node in flat.proto.graph.node if node.op_type == "Constant"}
    for name in moved:
        value = constant_value(flat, nodes[name]) if name in nodes else flat.array(name)
        assert value is not None
        proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return replace(flat, proto=proto)


def with_zeros(groups: Groups, steps: Collection[ZeroStep]) -> Model:
    """Set the elements of every step to what is stored for zero.

    Args:
        groups: the traced model.
        steps: its zeros.

    Returns:
        The model; nothing else in it is changed.
    """
    flat = with_dense(groups, [step.tensor for step in steps])
    return written_back(groups, flat, {step.tensor: partial(_masked, groups, flat, step) for step in steps})


def written_back(groups: Groups, flat: Model, values: Mapping[str, Callable[[], Array]]) -> Model:
    """Put other values into the initializers of a model.

    Args:
        groups: the traced original.
        flat: what `with_dense` gave of it.
        values: initializer of `flat` -> what makes its data, of the same shape and type.

    Returns:
        The original with these data; where it has not all of the initializers, the flat one with its bodies.
    """
    original = groups.model
    if all(name in original.initializers for name in values):
        return replace(original, values={**original.values, **values})
    proto = onnx.ModelProto()
    proto.CopyFrom(flat.proto)
    return nested(replace(flat, proto=proto, values={**flat.values, **values}), tidied=False)


def _masked(groups: Groups, flat: Model, step: ZeroStep) -> Array:
    value, tracing = flat.array(step.tensor), groups.tracing
    zero = tracing.stored_zero(step.tensor).astype(value.dtype)
    numbers, zeros = (tracing.elements(step.tensor, stored) for stored in (value, zero))
    return tracing.from_elements(step.tensor, np.where(step.keep, numbers, zeros))


def stored_sparse(model: Model, names: Collection[str]) -> tuple[Model, tuple[str, ...]]:
    """Write initializers as sparse ones, where that takes fewer bytes.

    Args:
        model: the model.
        names: dense initializers.

    Returns:
        The model, and the names of those that are sparse now; the model itself where none is.
    """
    fit = [n for n in names if n in model.initializers and _is_smaller(model, n)]
    if not fit:
        return model, ()
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    keep(proto.graph.initializer, lambda tensor: tensor.name not in fit)
    for name in fit:
        value = model.array(name)
        index = np.flatnonzero(value)
        values = numpy_helper.from_array(np.ascontiguousarray(value.reshape(-1)[index]), name)
        places = numpy_helper.from_array(index.astype(np.int64))
        proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, value.shape))
    left = {name: made for name, made in model.values.items() if name not in fit}
    return replace(model, proto=proto, values=left), tuple(fit)


def stored_dense(model: Model) -> Model:
    """Write sparse initializers as dense ones: strict shape inference takes a sparse one for a tensor of another type.

    Args:
        model: the model.

    Returns:
        The model; itself where no initializer is sparse.
    """
    sparse = [one.values.name for one in model.proto.graph.sparse_initializer]
    if not sparse:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.sparse_initializer[:]
    proto.graph.initializer.extend(numpy_helper.from_array(model.array(name), name) for name in sparse)
    return replace(model, proto=proto)


def sparse_bytes(elements: int, nonzeros: int, itemsize: int) -> int:
    """Count the bytes of a weight that is stored sparse, or dense where that takes fewer.

    Args:
        elements: all of them.
        nonzeros: those that are stored.
        itemsize: bytes of one.

    Returns:
        Bytes, without its name.
    """
    return min(elements * itemsize, nonzeros * (itemsize + PLACE) + FRAME)


def _is_smaller(model: Model, name: str) -> bool:
    tensor = model.initializers[name]
    if tensor.data_type not in _SPARSE_TYPES or tensor.data_location == TensorProto.EXTERNAL:
        return False
    value = model.array(name)
    nonzeros = int(np.count_nonzero(value))
    return nonzeros > 0 and sparse_bytes(value.size, nonzeros, value.itemsize) < value.nbytes
