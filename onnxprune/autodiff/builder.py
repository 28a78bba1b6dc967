"""A graph under construction, in which every tensor has a known shape.

`Value` is a tensor of that graph with numpy's operators, so that a derivative reads like its formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.typing import Array

Shape = tuple[int, ...]


# Constants up to this many elements are shared when they are equal.
_LARGEST_SHARED = 4096


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a graph under construction.

    Attributes:
        graph: the graph that the tensor belongs to.
        name: name of the tensor.
        shape: sizes of all axes.
        dtype: element type.
    """

    graph: GraphBuilder
    name: str
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def constant(self) -> Array | None:
        """The elements, where they are known while the graph is built."""
        return self.graph.constants.get(self.name)

    # --- arithmetic ------------------------------------------------------------------------------------------

    def __add__(self, other: Value | float) -> Value:
        return self._binary("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._binary("Sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self if isinstance(other, float | int) and other == 1 else self._binary("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._binary("Div", other)

    def __pow__(self, other: Value | float) -> Value:
        return self._binary("Pow", other)

    def __radd__(self, other: float) -> Value:
        return self.like(other) + self

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def __neg__(self) -> Value:
        return self.map("Neg")

    def __matmul__(self, other: Value) -> Value:
        """Multiply matrices; both have at least two axes."""
        stack = np.broadcast_shapes(self.shape[:-2], other.shape[:-2])
        return self.graph.op("MatMul", self, other, shape=(*stack, self.shape[-2], other.shape[-1]))

    def _binary(self, op: str, other: Value | float) -> Value:
        right = self.like(other)
        return self.graph.op(op, self, right, shape=np.broadcast_shapes(self.shape, right.shape))

    def like(self, number: Value | float) -> Value:
        """Turn a number into a constant of this tensor's type; return a value as it is."""
        if isinstance(number, Value):
            return number
        return self.graph.constant(np.asarray(number, self.dtype))

    # --- elementwise -----------------------------------------------------------------------------------------

    def map(self, op: str, **attributes: Any) -> Value:
        """Apply an operator that keeps shape and type."""
        return self.graph.op(op, self, shape=self.shape, **attributes)

    def cast(self, dtype: np.dtype[Any]) -> Value:
        """Convert to another element type."""
        if self.dtype == dtype:
            return self
        to = helper.np_dtype_to_tensor_dtype(dtype)
        return self.graph.op("Cast", self, shape=self.shape, dtype=dtype, to=to)

    def compare(self, op: str, other: Value | float) -> Value:
        """Compare elements (`Greater`, `Equal`, ...); a tensor of booleans."""
        right = self.like(other)
        shape = np.broadcast_shapes(self.shape, right.shape)
        return self.graph.op(op, self, right, shape=shape, dtype=np.dtype(bool))

    def mask(self, op: str, other: Value | float) -> Value:
        """Compare elements; ones and zeros of this tensor's type."""
        return self.compare(op, other).cast(self.dtype)

    def where(self, left: Value, right: Value) -> Value:
        """Choose `left` where this tensor of booleans is true, `right` elsewhere."""
        shape = np.broadcast_shapes(self.shape, np.broadcast_shapes(left.shape, right.shape))
        return self.graph.op("Where", self, left, right, shape=shape, dtype=left.dtype)

    # --- shape -----------------------------------------------------------------------------------------------

    def reshape(self, shape: Sequence[int]) -> Value:
        """Give the elements another shape, in the same order."""
        target = tuple(int(n) for n in shape)
        if target == self.shape:
            return self
        # In Reshape a zero copies an axis unless allowzero is set.
        options: dict[str, Any] = {"allowzero": 1} if 0 in target else {}
        return self.graph.op("Reshape", self, self.graph.integers(target), shape=target, **options)

    def transpose(self, order: Sequence[int]) -> Value:
        """Put the axes into another order."""
        if list(order) == list(range(self.rank)):
            return self
        return self.graph.op("Transpose", self, shape=[self.shape[a] for a in order], perm=[int(a) for a in order])

    @property
    def mT(self) -> Value:
        """The transposed matrices: the last two axes are swapped."""
        return self.transpose([*range(self.rank - 2), self.rank - 1, self.rank - 2])

    def expand(self, shape: Sequence[int]) -> Value:
        """Repeat axes of size one."""
        target = tuple(int(n) for n in shape)
        if target == self.shape:
            return self
        return self.graph.op("Expand", self, self.graph.integers(target), shape=target)

    def slice(self, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Take positions `start:stop:step` of an axis, with Python's meaning for `0 <= start`, `stop >= -1`."""
        positions = range(start, stop, step)
        if len(positions) == self.shape[axis] and step == 1:
            return self
        shape = [len(positions) if a == axis else n for a, n in enumerate(self.shape)]
        # A stop of -1 means the last position to ONNX; the smallest number means "in front of the first".
        end = stop if stop >= 0 else np.iinfo(np.int64).min
        bounds = (self.graph.integers([int(v)]) for v in (start, end, axis, step))
        return self.graph.op("Slice", self, *bounds, shape=shape)

    def split(self, axis: int, sizes: Sequence[int]) -> list[Value]:
        """Cut an axis into parts; the gradient is put together again in one go."""
        if len(sizes) == 1:
            return [self]
        shapes = [[n if a == axis else m for a, m in enumerate(self.shape)] for n in sizes]
        return self.graph.ops("Split", [self, self.graph.integers(sizes)], shapes, [self.dtype] * len(sizes), axis=axis)

    def pad(self, before: Sequence[int], after: Sequence[int]) -> Value:
        """Put zeros around the tensor; one number for each axis."""
        if not any(before) and not any(after):
            return self
        shape = [n + b + a for n, b, a in zip(self.shape, before, after, strict=True)]
        return self.graph.op("Pad", self, self.graph.integers([*before, *after]), shape=shape)

    def reversed(self, axis: int) -> Value:
        """Put the positions of an axis into reverse order."""
        return self.slice(axis, self.shape[axis] - 1, -1, -1)

    # --- reductions ------------------------------------------------------------------------------------------

    def sum(self, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        """Add along axes."""
        return self._reduce("ReduceSum", axes, keepdims)

    def mean(self, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        """Average along axes."""
        return self._reduce("ReduceMean", axes, keepdims)

    def _reduce(self, op: str, axes: Sequence[int], keepdims: bool) -> Value:
        along = sorted({int(a) % self.rank for a in axes}) if self.rank else []
        if not along:
            return self
        shape = self.reduced_shape(along, keepdims=keepdims)
        return self.graph.op(op, self, self.graph.integers(along), shape=shape, keepdims=int(keepdims))

    def reduced_shape(self, axes: Sequence[int], *, keepdims: bool) -> Shape:
        """The shape after a reduction along `axes`, which are not negative."""
        if keepdims:
            return tuple(1 if a in axes else n for a, n in enumerate(self.shape))
        return tuple(n for a, n in enumerate(self.shape) if a not in axes)

    def sum_to(self, shape: Shape) -> Value:
        """Add up the copies that broadcasting from `shape` made: the adjoint of a broadcast."""
        full = self.expand(np.broadcast_shapes(self.shape, shape))
        padded = (1,) * (full.rank - len(shape)) + tuple(shape)
        axes = [a for a, (n, m) in enumerate(zip(full.shape, padded, strict=True)) if m == 1 and n != 1]
        return full.sum(axes, keepdims=True).reshape(shape)


class GraphBuilder:
    """Nodes and constants of a graph under construction.

    Attributes:
        nodes: nodes in the order in which they run.
        constants: name -> elements of the tensors that are known while the graph is built.
        inputs: name -> tensor that is fed when the graph runs.
        values: every tensor whose shape is known, by name.
        opset: version of ONNX's own operators.
    """

    def __init__(self, reserved: Sequence[str] = (), *, prefix: str = "grad", opset: int = 18) -> None:
        """Start an empty graph.

        Args:
            reserved: names that no tensor made here may have.
            prefix: beginning of the names made here.
            opset: version of ONNX's own operators, 18 or newer.
        """
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs: dict[str, Value] = {}
        self.values: dict[str, Value] = {}
        self._taken = set(reserved)
        self._prefix = prefix
        self._count = 0
        self._shared: dict[tuple[str, Shape, bytes], Value] = {}

    def unique(self, stem: str) -> str:
        """Return a name that no tensor has."""
        while True:
            self._count += 1
            name = f"{self._prefix}/{stem}_{self._count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def constant(self, array: Array) -> Value:
        """Add a constant; equal small constants become one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= _LARGEST_SHARED else None
        if key is not None and key in self._shared:
            return self._shared[key]
        value = self.value(self.unique("constant"), array.shape, array.dtype)
        self.constants[value.name] = array
        if key is not None:
            self._shared[key] = value
        return value

    def integers(self, numbers: Sequence[int]) -> Value:
        """Add a constant list of integers (sizes, axes, bounds)."""
        return self.constant(np.array([int(n) for n in numbers], np.int64))

    def zeros(self, shape: Shape, dtype: np.dtype[Any]) -> Value:
        """Add a tensor of zeros, made when the graph runs."""
        fill = onnx.numpy_helper.from_array(np.zeros(1, dtype))
        return self.op("ConstantOfShape", self.integers(shape), shape=shape, dtype=dtype, value=fill)

    def input(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> Value:
        """Declare a tensor that is fed when the graph runs; the name is made unique."""
        if name in self._taken:
            name = self.unique(name)
        value = self.inputs[name] = self.value(name, shape, dtype)
        return value

    def value(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> Value:
        """Refer to a tensor that something else makes."""
        self._taken.add(name)
        known = self.values[name] = Value(self, name, tuple(int(n) for n in shape), np.dtype(dtype))
        return known

    def op(
        self,
        op_type: str,
        *inputs: Value | None,
        shape: Sequence[int],
        dtype: np.dtype[Any] | None = None,
        **attributes: Any,
    ) -> Value:
        """Add a node with one output.

        Args:
            op_type: an operator of ONNX's own domain.
            *inputs: its inputs; None leaves an optional one out.
            shape: of the output.
            dtype: of the output; that of the first input if None.
            **attributes: of the node.
        """
        return self.ops(op_type, inputs, [shape], [dtype], **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[np.dtype[Any] | None] | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """Add a node with several outputs; see `op`."""
        first = next((i.dtype for i in inputs if i is not None), np.dtype(np.float32))
        kinds = [first if d is None else np.dtype(d) for d in dtypes or [None] * len(shapes)]
        made = [self.value(self.unique(op_type), tuple(s), d) for s, d in zip(shapes, kinds, strict=True)]
        names = ["" if i is None else i.name for i in inputs]
        self.nodes.append(helper.make_node(op_type, names, [v.name for v in made], **attributes))
        return made

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Join tensors along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(p.shape[axis] for p in parts)
        return self.op("Concat", *parts, shape=shape, axis=axis)

    def total(self, parts: Sequence[Value]) -> Value:
        """Add tensors of one shape."""
        return parts[0] if len(parts) == 1 else self.op("Sum", *parts, shape=parts[0].shape)
