"""The masked reference: the original model with every removed position silenced.

Zeros are put in front of every contraction at the positions that go; an operator whose values depend on how many
positions there are (a norm, a mean) is computed on the remaining positions only and laid out again. The pruned
model must equal this model to float tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model import Model, Names, control_flow
from onnxprune.model.flatten import unflatten
from onnxprune.model.graph import first_output
from onnxprune.rewriting import Removal
from onnxprune.tracing import Axes, Groups, NodeView, Resize
from onnxprune.typing import Array, Shape


def masked(groups: Groups, removed: Array) -> Model:
    """The reference for removing the classes `removed`; it runs at the sizes in `groups.static` only."""
    proto = flat_masked(groups, removed).proto
    unflatten(proto.graph)
    return replace(groups.model, proto=proto)


def flat_masked(groups: Groups, removed: Array) -> Model:
    """The reference with its bodies laid out, as they were traced."""
    proto = onnx.ModelProto()
    proto.CopyFrom(groups.tracing.model.proto)
    del proto.graph.node[:]
    del proto.graph.value_info[:]
    build = _Reference(groups, Removal(groups, removed), proto.graph)
    views = groups.tracing.by_output
    for node in groups.tracing.model.proto.graph.node:
        view, rule = views.get(first_output(node), (None, None))
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if view is None or not view.masked_axes:
            proto.graph.node.append(new)
        elif any(r.averaged and build.is_cut(view, r.slot, r.axis) for r in view.masked_axes):
            build.on_remaining(view, new, rule.resize if rule else None)
        else:
            build.silence(view, new)
            proto.graph.node.append(new)
    return replace(groups.tracing.model, proto=proto)


@dataclass
class _Reference:
    groups: Groups
    removal: Removal
    graph: onnx.GraphProto
    zeros: dict[int, str] = field(default_factory=dict)
    silenced: dict[tuple[str, str, bytes], str] = field(default_factory=dict)

    def is_cut(self, view: NodeView, slot: int, axis: int) -> bool:
        return self.removal.loses(view.labels(slot)[axis])

    def name(self, role: str) -> str:
        return self.names.unique(f"onnxprune_reference_{role}")

    @cached_property
    def names(self) -> Names:
        return Names(self.groups.model.proto.graph, self.groups.tracing.model.proto.graph)

    @cached_property
    def has_bodies(self) -> bool:
        return any(map(control_flow.is_body_start, self.groups.tracing.model.proto.graph.node))

    def constant(self, value: Array, role: str) -> str:
        name = self.name(role)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        if self.groups.model.proto.ir_version < 4:
            dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
            self.graph.input.append(helper.make_tensor_value_info(name, dtype, value.shape))
        return name

    def add(self, op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = self.name(op.lower())
        output = output or name
        self.graph.node.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def silence(self, view: NodeView, node: onnx.NodeProto) -> None:
        """Put zeros in at the removed positions of every contracted axis."""
        for slot, zero in {(r.slot, r.zero) for r in view.masked_axes if not r.averaged}:
            shape, axes = view.shape(slot), view.labels(slot)
            read = {r.axis for r in view.masked_axes if r.slot == slot}
            whole = self.removal.mask(shape, tuple(x if a in read else _WHOLE for a, x in enumerate(axes)))
            if whole is not None:
                given = view.node.input[zero] if zero is not None and view.has(zero) else ""
                node.input[slot] = self._silenced(node.input[slot], whole, given)

    def _silenced(self, tensor: str, mask: Array, given: str) -> str:
        """The same as `_zero`, which many readers of a tensor share; a body's nodes must not be read outside of it."""
        if self.has_bodies:
            return self._zero(tensor, mask, given)
        key = tensor, given, bytes(np.packbits(mask)) + str(mask.shape).encode()
        if key not in self.silenced:
            self.silenced[key] = self._zero(tensor, mask, given)
        return self.silenced[key]

    def _zero(self, tensor: str, mask: Array, given: str) -> str:
        """Put what stands for zero (the tensor `given`, or 0) where `mask` does not hold."""
        dtype = self.groups.static.dtypes[tensor]
        if dtype in _BYTES:  # ONNX Runtime has no Where for all of them
            wide = self._zero_of(onnx.TensorProto.INT32)
            if given:
                wide = self.add("Cast", [given], to=onnx.TensorProto.INT32)
            tensor = self.add("Cast", [tensor], to=onnx.TensorProto.INT32)
            return self.add("Cast", [self.add("Where", [self.constant(mask, "mask"), tensor, wide])], to=dtype)
        if self._version() >= 9:
            return self.add("Where", [self.constant(mask, "mask"), tensor, given or self._zero_of(dtype)])
        factor = mask.astype(helper.tensor_dtype_to_np_dtype(dtype))
        return self.add("Mul", [tensor, self.constant(factor, "mask")])

    def _zero_of(self, dtype: int) -> str:
        if dtype not in self.zeros:
            zero = np.zeros((), helper.tensor_dtype_to_np_dtype(dtype))
            self.zeros[dtype] = self.constant(zero, "zero")
        return self.zeros[dtype]

    def _version(self) -> int:
        return max(o.version for o in self.groups.model.proto.opset_import if o.domain in ("", "ai.onnx"))

    def on_remaining(self, view: NodeView, node: onnx.NodeProto, resize: Resize | None) -> None:
        """Compute a node on the remaining positions of all its inputs, and lay its outputs out again."""
        inputs, outs = self.removal.around(view)
        for slot, axes in enumerate(inputs):
            if axes is not None:
                node.input[slot] = self._pick(node.input[slot], view.shape(slot), axes)
        full = list(node.output)
        small = [self.name("part") if o and outs[i] is not None else o for i, o in enumerate(full)]
        node.output[:] = small
        if resize is not None:
            constants: dict[str, Array] = {}
            edit = self.removal.resized(view, resize, node, self.name, constants)
            self.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
            self.graph.node.extend([*edit.before, node, *edit.after])
        else:
            self.graph.node.append(node)
        for index, (name, axes) in enumerate(zip(full, outs, strict=True)):
            if name and axes is not None:
                self._spread(small[index], name, self.groups.static.shapes[name], axes)

    def _pick(self, tensor: str, shape: Shape, axes: Axes) -> str:
        """The remaining positions of a tensor."""
        for axis, labels in _fields_first(axes):
            removed = self.removal.removed(labels)
            if not removed.any():
                continue
            if removed.ndim == 1:
                index = self.constant(np.flatnonzero(~removed), "kept")
                tensor = self.add("Gather", [tensor, index], axis=axis)
                shape = (*shape[:axis], int((~removed).sum()), *shape[axis + 1 :])
            else:
                tensor, shape = self._by_rows(tensor, shape, axis, removed, spread=False)
        return tensor

    def _spread(self, tensor: str, output: str, shape: Shape, axes: Axes) -> None:
        """Lay a tensor of the remaining positions out to `shape`; removed positions hold a copy of another."""
        shrinking = [(a, x) for a, x in _fields_first(axes) if self.removal.loses(x)]
        now = self.removal.shape(shape, axes)
        for axis, labels in reversed(shrinking):
            removed = self.removal.removed(labels)
            if removed.ndim == 1:
                index = self.constant(np.maximum(np.cumsum(~removed) - 1, 0), "place")
                tensor = self.add("Gather", [tensor, index], axis=axis)
                now = (*now[:axis], shape[axis], *now[axis + 1 :])
            else:
                tensor, now = self._by_rows(tensor, now, axis, removed, spread=True)
        self.add("Identity", [tensor], output)

    def _by_rows(self, tensor: str, shape: Shape, axis: int, removed: Array, *, spread: bool) -> tuple[str, Shape]:
        """Pick or spread positions of `axis` that differ from row to row, through a flat index."""
        rows = [a for a in range(len(shape)) if a != axis and removed.shape[a] > 1]
        rest = [a for a in range(len(shape)) if a != axis and a not in rows]
        order = [*rows, axis, *rest]
        table = np.transpose(removed, order).reshape(-1, removed.shape[axis])
        width = table.shape[1] if not spread else int((~table[0]).sum())
        offsets = np.arange(len(table))[:, None] * width
        if spread:
            index = np.maximum(np.cumsum(~table, axis=1) - 1, 0) + offsets
        else:
            index = (np.broadcast_to(np.arange(width), table.shape)[~table]).reshape(len(table), -1) + offsets
        turned = self.add("Transpose", [tensor], perm=order)
        flat = [len(table) * width, *(shape[a] for a in rest)]
        joined = self.add("Reshape", [turned, self.constant(np.array(flat, np.int64), "flat")])
        picked = self.add("Gather", [joined, self.constant(index.reshape(-1).astype(np.int64), "rows")], axis=0)
        new = (*shape[:axis], index.shape[1], *shape[axis + 1 :])
        sizes = np.array([new[a] for a in order], np.int64)
        parted = self.add("Reshape", [picked, self.constant(sizes, "parted")])
        return self.add("Transpose", [parted], perm=np.argsort(order).tolist()), new


_WHOLE: Array = np.array([-1], np.int32)
_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def _fields_first(axes: Axes) -> list[tuple[int, Array]]:
    return sorted(enumerate(axes), key=lambda pair: pair[1].ndim == 1)
