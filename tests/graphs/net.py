"""Small models, built node by node, and the questions that tests ask of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import Model, load
from onnxprune.runtime import Session
from onnxprune.tracing import Group, Groups

NEWEST_OPSET = 24


class Net:
    """A graph under construction; every method returns the name of the tensor that it made."""

    def __init__(
        self, opset: int = 17, *, seed: int = 0, dtype: Any = np.float32, ir_version: int = 0, name: str = "net"
    ) -> None:
        self.opset, self.dtype, self.name = opset, np.dtype(dtype), name
        self.ir_version = ir_version or max(8, helper.find_min_ir_version_for(self._opsets()))
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.domains: set[str] = set()
        self._count = 0

    def _opsets(self) -> list[onnx.OperatorSetIdProto]:
        return [helper.make_opsetid("", self.opset)]

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, shape: Sequence[int | str], name: str = "", dtype: int = 0) -> str:
        name = name or ("x" if not self.inputs else f"x{len(self.inputs)}")
        kind = dtype or helper.np_dtype_to_tensor_dtype(self.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def const(self, value: Any, name: str = "", dtype: Any = None) -> str:
        name = name or self.fresh("c")
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def weight(self, *shape: int, name: str = "", scale: float = 0.0) -> str:
        """Random weights that keep activations near 1."""
        fan = max(1, int(np.prod(shape[1:])) if len(shape) > 2 else (shape or (1,))[0])
        value = np.asarray(self.rng.standard_normal(shape) * (scale or fan**-0.5))
        return self.const(value.astype(self.dtype), name or self.fresh("w"))

    def add(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", name: str = "", **attrs: Any) -> Any:
        """Append a node; attributes that are None are left out. A list of names where `outputs` is not 1."""
        if domain:
            self.domains.add(domain)
        name = name or self.fresh(op.lower())
        made = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        given = {k: v for k, v in attrs.items() if v is not None}
        self.nodes.append(helper.make_node(op, inputs, made, name=f"{name}_node", domain=domain, **given))
        return made[0] if outputs == 1 else made

    def listed(
        self, op: str, x: str, values: Sequence[int] | None, *, since: int, name: str = "axes", **attrs: Any
    ) -> Any:
        """A node whose list is an attribute before opset `since` and an input from there on."""
        if values is None:
            return self.add(op, x, **attrs)
        if self.opset < since:
            return self.add(op, x, **{name: list(values)}, **attrs)
        return self.add(op, x, self.ints(*values), **attrs)

    def cast(self, x: str, to: int) -> str:
        return self.add("Cast", x, to=to)

    def output(self, name: str, shape: Sequence[int | str] | None = None, dtype: int = 0) -> None:
        """Make a tensor an output; type and shape are what the runtime says, unless given."""
        if shape is None:
            value = self.probe(name)
            shape, dtype = value.shape, helper.np_dtype_to_tensor_dtype(value.dtype)
        kind = dtype or helper.np_dtype_to_tensor_dtype(self.dtype)
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def proto(self, outputs: Sequence[onnx.ValueInfoProto] = ()) -> onnx.ModelProto:
        inputs = list(self.inputs)
        if self.ir_version < 4:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.weights]
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs or self.outputs, self.weights)
        opsets = self._opsets() + [helper.make_opsetid(d, 1) for d in sorted(self.domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)

    def model(self) -> Model:
        return load(self.proto())

    def probe(self, tensor: str) -> np.ndarray:
        """The value of a tensor on random inputs: its type and shape as the runtime says them."""
        wanted = onnx.ValueInfoProto(name=tensor)
        return run(self.proto([wanted]))[tensor]

    # --- contractions around what is tested -------------------------------------------------------------------

    def make(self, shape: Sequence[int], axis: int, weight: str = "w_in", source: str = "") -> str:
        """A tensor of `shape` whose positions along `axis` are columns of a new weight, 3 x shape[axis]."""
        rest = [s for a, s in enumerate(shape) if a != axis]
        x = source or self.input([*rest, 3])
        made = self.add("MatMul", x, self.weight(3, shape[axis], name=weight))
        if axis == len(shape) - 1:
            return made
        order = list(range(len(shape) - 1))
        order.insert(axis, len(shape) - 1)
        return self.add("Transpose", made, perm=order)

    def read(self, tensor: str, axis: int, weight: str = "w_out") -> str:
        """Contract `axis` of `tensor` with a new weight, and make the result an output."""
        value = self.probe(tensor)
        shape = [*(s for a, s in enumerate(value.shape) if a != axis), 4]
        if value.dtype != self.dtype:
            tensor = self.cast(tensor, helper.np_dtype_to_tensor_dtype(self.dtype))
        if axis != value.ndim - 1:
            order = [*(a for a in range(value.ndim) if a != axis), axis]
            tensor = self.add("Transpose", tensor, perm=order)
        made = self.add("MatMul", tensor, self.weight(value.shape[axis], 4, name=weight))
        self.output(made, shape)
        return made


# --- running ------------------------------------------------------------------------------------------------


def feeds_of(proto: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs: symbolic dims are 2."""
    rng = np.random.default_rng(seed)
    weights = {t.name for t in proto.graph.initializer}
    feeds = {}
    for value in proto.graph.input:
        if value.name not in weights:
            kind = value.type.tensor_type
            shape = [d.dim_value or 2 for d in kind.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            drawn = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.standard_normal(shape)
            feeds[value.name] = drawn.astype(dtype)
    return feeds


def run(proto: onnx.ModelProto | Model, seed: int = 0, feeds: Any = None) -> dict[str, np.ndarray]:
    """Outputs by name on random inputs."""
    model = load(proto, check=False)
    with Session(model, threads=1) as session:
        found = session.run(feeds if feeds is not None else feeds_of(model.proto, seed))
        return dict(zip(session.outputs, found, strict=True))


def prune(source: onnx.ModelProto | Model, ratio: float = 0.5, **options: Any) -> api.Outcome:
    return api.run(load(source), Options(ratio=ratio, **options))


# --- asking -------------------------------------------------------------------------------------------------


def group_of(groups: Groups, tensor: str, axis: int) -> Group | None:
    """The group that cuts an axis of a weight; the one that cuts most weights, if several do."""
    found = groups_of(groups, tensor, axis)
    return max(found, key=lambda group: len(group.members)) if found else None


def groups_of(groups: Groups, tensor: str, axis: int) -> list[Group]:
    return [g for g in groups.groups if any((m.tensor, m.axis) == (tensor, axis) for m in g.members)]


def positions_of(group: Group, tensor: str, axis: int) -> int:
    """How many positions of an axis a group cuts, over all uses of the weight."""
    return max(m.positions for m in group.members if (m.tensor, m.axis) == (tensor, axis))


def reasons_for(groups: Groups, tensor: str, axis: int) -> set[str]:
    """The reasons that lock positions on an axis of a weight."""
    return {b.reason for b in groups.barriers if any(m[:2] == (tensor, axis) for m in b.members)}


def shapes_of(model: onnx.ModelProto | Model) -> dict[str, tuple[int, ...]]:
    """Initializer -> shape."""
    proto = model.proto if isinstance(model, Model) else model
    return {t.name: tuple(t.dims) for t in proto.graph.initializer}


def array_of(model: onnx.ModelProto | Model, name: str) -> np.ndarray:
    proto = model.proto if isinstance(model, Model) else model
    return next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)


def with_arrays(proto: onnx.ModelProto, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A copy with other values in some initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return copy


def ops_of(model: onnx.ModelProto | Model) -> list[str]:
    proto = model.proto if isinstance(model, Model) else model
    return [n.op_type for n in proto.graph.node]


FLOAT, INT64, INT32, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL
UINT8, DOUBLE, FLOAT16 = TensorProto.UINT8, TensorProto.DOUBLE, TensorProto.FLOAT16
