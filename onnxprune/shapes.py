"""Static shapes and values of every tensor of a graph.

Symbolic input dims are replaced by numbers; one forward scan then alternates the shape functions of
`onnx.defs` with the evaluation of the small integer subgraphs that exporters use to compute shapes. The
scan is made for two different sets of numbers: what differs between them is dynamic, what does not is static.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from onnxprune import contrib, flow
from onnxprune.evaluate import EVALUATORS
from onnxprune.native import killable
from onnxprune.symbols import candidate_sizes, dims_of, is_fixed, symbolic_dims

if TYPE_CHECKING:
    from onnxprune.model import Model

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]

# Values larger than this are not tracked: index tables of windowed attention have some 10^4 entries.
LARGEST_VALUE = 1 << 20
# Float values matter only as scalars on the way to a shape (floor(size * scale)); integers and booleans always.
LARGEST_FLOAT = 64


@dataclass(frozen=True)
class Facts:
    """What is known before anything runs.

    Attributes:
        shapes: tensor name -> sizes under the first set of numbers; absent where unknown.
        dtypes: tensor name -> `TensorProto` data type.
        values: tensor name -> value, only where it is the same under both sets of numbers.
        seen: tensor name -> value under the first set of numbers, the dynamic ones included.
        dynamic: tensor name -> the axes whose size depends on the symbolic dims.
        sizes: symbolic dim -> the number that stood for it.
    """

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    values: Mapping[str, np.ndarray]
    seen: Mapping[str, np.ndarray]
    dynamic: Mapping[str, frozenset[int]]
    sizes: Mapping[str, int]


@dataclass
class _Scan:
    """One forward scan: filled node by node; `differs` names what another scan found otherwise."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    differs: set[str] = field(default_factory=set)

    def put(self, name: str, dtype: int, shape: Sequence[int]) -> None:
        self.shapes[name] = tuple(shape)
        self.dtypes[name] = dtype

    def put_value(self, name: str, value: np.ndarray, dtype: int | None = None) -> None:
        self.put(name, dtype or helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        if _is_tracked(value):
            self.values[name] = value

    def type_of(self, name: str) -> onnx.TypeProto | None:
        known = self.types.get(name)
        if known is None and name in self.dtypes:
            known = self.types[name] = helper.make_tensor_type_proto(self.dtypes[name], self.shapes.get(name))
        return known


def _is_tracked(value: np.ndarray) -> bool:
    limit = LARGEST_VALUE if value.dtype.kind in "iub" else LARGEST_FLOAT
    return bool(value.size <= limit)


def infer(model: Model, sizes: Mapping[str, int] | None = None) -> Facts:
    """The static shapes and values of `model`.

    Args:
        model: the model; its weights are not read, only small integer constants are.
        sizes: numbers for symbolic dims by name (`"batch"`), or by `"input[axis]"` for a dim without a name;
            dims that are not named here get defaults.

    Returns:
        The facts; tensors whose shape cannot be known are absent from `shapes`.
    """
    shared = _Shared(model)
    while True:
        known = len(shared.unsteady)
        facts = _both(shared, dict(sizes or {}))
        if len(shared.unsteady) == known:
            return facts


def _both(shared: _Shared, given: dict[str, int]) -> Facts:
    """Both scans, at the first numbers that the graph accepts."""
    symbols = symbolic_dims(shared.model.proto.graph)
    first: _Scan | None = None
    for numbers, others in candidate_sizes(symbols, given):
        scan = _scan(shared, given | numbers)
        if first is None or not scan.failures:
            first, chosen, rest = scan, given | numbers, given | others
        if not scan.failures:
            break
    assert first is not None
    for failure in first.failures[:3]:
        logger.debug("shape inference: %s", failure)
    second = _second(shared, first, chosen, rest) if symbols else first
    return _facts(first, second, chosen)


def _second(shared: _Shared, first: _Scan, numbers: Mapping[str, int], others: Mapping[str, int]) -> _Scan:
    """The scan at the other numbers; a symbol that the graph accepts at one number only keeps it."""
    second = _scan(shared, others, first)
    if len(second.failures) <= len(first.failures):
        return second
    accepted, second = dict(numbers), _scan(shared, numbers, first)
    for symbol in sorted(others, key=lambda s: others[s]):  # the batch is the smallest
        trial = _scan(shared, accepted | {symbol: others[symbol]}, first)
        if len(trial.failures) <= len(first.failures):
            accepted[symbol], second = others[symbol], trial
    return second


def _facts(first: _Scan, second: _Scan, sizes: Mapping[str, int]) -> Facts:
    """What both scans agree on is static."""
    values = {k: v for k, v in first.values.items() if k not in second.differs}
    dynamic = {}
    for name in second.differs:
        shape, other = first.shapes.get(name), second.shapes.get(name)
        if shape is not None and shape != other:
            same_rank = other is not None and len(other) == len(shape)
            dynamic[name] = frozenset(
                a
                for a, n in enumerate(shape)
                if not same_rank or other[a] != n  # type: ignore[index]
            )
    return Facts(first.shapes, first.dtypes, values, first.values, dynamic, sizes)


# --- one scan --------------------------------------------------------------------------------------------


class _Shared:
    """What all scans of a model share: constants, declarations, and the shape functions' answers."""

    def __init__(self, model: Model) -> None:
        proto = model.proto
        self.model = model
        self.weights = _Scan()
        for tensor in proto.graph.initializer:
            self.weights.put(tensor.name, tensor.data_type, tensor.dims)
            size = math.inf if tensor.name in model.overridable else math.prod(tensor.dims)
            if size <= LARGEST_FLOAT or (tensor.data_type in _INTEGERS and size <= LARGEST_VALUE):
                self.weights.put_value(tensor.name, model.array(tensor), tensor.data_type)
        for sparse in proto.graph.sparse_initializer:
            self.weights.put(sparse.values.name, sparse.values.data_type, sparse.dims)
        for node in proto.graph.node:
            if node.op_type == "Constant" and not node.domain:
                value = constant_value(model, node)
                if value is not None:
                    self.weights.put_value(node.output[0], value)
        # Defaults that are declared so that another may have other sizes.
        self.loose = {v.name for v in proto.graph.input if v.name in model.overridable and not is_fixed(v)}
        self.infos = {v.name: v for v in (*proto.graph.value_info, *proto.graph.output)}
        self.opsets = list(proto.opset_import)
        self.versions = {o.domain: o.version for o in self.opsets}
        self.versions.setdefault("", self.versions.get("ai.onnx", 1))
        # What loops carry from step to step whose shape changes on the way.
        self.unsteady: set[str] = set()
        self.answers: dict[tuple[object, ...], list[tuple[int, Shape | None]]] = {}


def _scan(shared: _Shared, sizes: Mapping[str, int], before: _Scan | None = None) -> _Scan:
    """Scan once; with `before`, only what depends on a size that is another one now."""
    weights, graph = shared.weights, shared.model.proto.graph
    if before is None:
        scan = _Scan(dict(weights.shapes), dict(weights.dtypes), dict(weights.values))
    else:
        scan = _Scan(dict(before.shapes), dict(before.dtypes), dict(before.values), dict(before.types))
    step = _Step(shared, scan, sizes)
    for value in graph.input:
        if value.name not in weights.shapes:
            _put_info(scan, value, sizes)
            step.note(before, [value.name])
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain:
            continue
        if before is not None:
            if not any(i in scan.differs for i in node.input) and not step.has_subgraph(node):
                continue
            for name in node.output:
                for known in (scan.shapes, scan.values, scan.types):
                    known.pop(name, None)
        step.node(node)
        step.note(before, node.output)
    return scan


_INTEGERS = frozenset(
    (
        TensorProto.INT64,
        TensorProto.INT32,
        TensorProto.BOOL,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT16,
    )
)


def _broadcast(node: onnx.NodeProto, *shapes: Shape) -> Shape:
    return np.broadcast_shapes(*shapes)


def _like_first(node: onnx.NodeProto, *shapes: Shape) -> Shape:
    return shapes[0]


def _crop(node: onnx.NodeProto, *shapes: Shape) -> Shape:
    attrs = {a.name: list(a.ints) for a in node.attribute}
    left, top, right, bottom = attrs["border"]
    n, c, height, width = shapes[0]
    inner = attrs.get("scale") or [height - top - bottom, width - left - right]
    return (n, c, *inner)


# Operators for which onnx has no shape function: some that it defines by a function, and experimental ones of old
# exporters that ONNX Runtime still runs.
_WITHOUT_SHAPE_FUNCTION: Mapping[str, Callable[..., Shape]] = {
    "Affine": _like_first,
    "Crop": _crop,
    "GreaterOrEqual": _broadcast,
    "GroupNormalization": _like_first,
    "ImageScaler": _like_first,
    "LessOrEqual": _broadcast,
    "MeanVarianceNormalization": _like_first,
    "SimplifiedLayerNormalization": _like_first,
}


# The most frequent of the operators whose output is like input 0: asking onnx takes ten times as long.
_SAME_SHAPE = frozenset(
    (
        *("BatchNormalization", "Clip", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization"),
        *("InstanceNormalization", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softmax", "Sqrt", "Tanh"),
    )
)


def _put_info(scan: _Scan, value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> bool:
    """Take the shape that the file declares, if all of it is known."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.elem_type:
        return False
    scan.dtypes[value.name] = kind.elem_type
    if not kind.HasField("shape"):
        return False
    dims = [d if isinstance(d, int) else sizes.get(d) for d in dims_of(value)]
    if any(d is None for d in dims):
        return False
    scan.put(value.name, kind.elem_type, [int(d) for d in dims if d is not None])
    return True


@dataclass(frozen=True)
class _Step:
    """Advances a scan by one node."""

    shared: _Shared
    scan: _Scan
    sizes: Mapping[str, int]

    def has_subgraph(self, node: onnx.NodeProto) -> bool:
        if flow.is_begin(node) or flow.is_flat(node):
            return True
        return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)

    def note(self, before: _Scan | None, names: Iterable[str]) -> None:
        """Remember which tensors another scan found otherwise."""
        if before is None:
            return
        scan = self.scan
        for name in names:
            if scan.shapes.get(name) != before.shapes.get(name):
                scan.differs.add(name)
                scan.types.pop(name, None)
            elif name in scan.values or name in before.values:
                now, then = scan.values.get(name), before.values.get(name)
                if now is None or then is None or not np.array_equal(now, then):
                    scan.differs.add(name)

    def node(self, node: onnx.NodeProto) -> None:
        scan = self.scan
        if flow.is_begin(node) or flow.is_flat(node):
            self._flow(node)
            return
        if self._evaluate(node):
            return
        if node.op_type in _SAME_SHAPE and not node.domain and node.input[0] in scan.shapes:
            scan.put(node.output[0], scan.dtypes[node.input[0]], scan.shapes[node.input[0]])
            if len(node.output) == 1:
                return
        if self._infer(node):
            return
        if node.op_type in _WITHOUT_SHAPE_FUNCTION and all(i in scan.shapes for i in node.input):
            shape = _WITHOUT_SHAPE_FUNCTION[node.op_type](node, *(scan.shapes[i] for i in node.input))
            is_test = node.op_type.endswith("OrEqual")
            scan.put(node.output[0], TensorProto.BOOL if is_test else scan.dtypes[node.input[0]], shape)
            return
        for name in node.output:
            if name in self.shared.infos:
                _put_info(scan, self.shared.infos[name], self.sizes)

    def _flow(self, node: onnx.NodeProto) -> None:
        """What a body is given, and what comes out of the bodies of a node."""
        flow.infer(node, self.scan, self.shared.unsteady)
        counted = flow.begins(node)[0] if flow.is_begin(node) else 0
        for slot, name in enumerate(node.output):
            known = name in self.scan.shapes and slot >= counted
            if name in self.shared.infos and not known and name not in self.shared.unsteady:
                _put_info(self.scan, self.shared.infos[name], self.sizes)

    def _evaluate(self, node: onnx.NodeProto) -> bool:
        scan = self.scan
        if node.op_type == "Shape" and node.input[0] in self.shared.loose:
            return False
        if node.op_type == "Shape" and node.input[0] in scan.shapes:
            attrs = {a.name: a.i for a in node.attribute}
            dims = scan.shapes[node.input[0]][attrs.get("start", 0) : attrs.get("end")]
            scan.put_value(node.output[0], np.array(dims, np.int64), TensorProto.INT64)
            return True
        evaluator = EVALUATORS.get(node.op_type)
        if evaluator is None or node.domain or any(i and i not in scan.values for i in node.input):
            return False
        try:
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            inputs = (scan.values[i] if i else None for i in node.input)
            results = evaluator(attrs, *inputs, outputs=len(node.output))
        except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError) as error:
            scan.failures.append(f"{node.op_type} {node.name!r}: {error}")
            return False
        for name, value in zip(node.output, results, strict=False):
            if name:
                scan.put_value(name, np.asarray(value))
        return True

    def _infer(self, node: onnx.NodeProto) -> bool:
        """Ask the operator's shape function; nodes that look alike are asked about once."""
        scan, shared = self.scan, self.shared
        values = [scan.values[i] if i in scan.values and scan.values[i].size <= 1024 else None for i in node.input]
        key = (
            node.domain,
            node.op_type,
            tuple(a.SerializeToString() for a in node.attribute),
            tuple((scan.dtypes.get(i), scan.shapes.get(i)) if i else None for i in node.input),
            tuple(None if v is None else v.tobytes() for v in values),
            tuple(map(bool, node.output)),
        )
        answers = shared.answers.get(key)
        if answers is None:
            answers = self._ask(node, values)
            if answers:  # a refusal is asked again, since every scan counts its own
                shared.answers[key] = answers
        complete = bool(answers)
        for name, (dtype, shape) in zip(node.output, answers, strict=False):
            if not name:
                continue
            if dtype:
                scan.dtypes[name] = dtype
            if shape is None:
                complete = False
            else:
                scan.put(name, dtype, shape)
        return complete

    def _ask(self, node: onnx.NodeProto, values: Sequence[np.ndarray | None]) -> list[tuple[int, Shape | None]]:
        scan, shared = self.scan, self.shared
        node = contrib.standard(node)
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = defs.get_schema(node.op_type, shared.versions.get(domain, 1), domain)
        except defs.SchemaError:
            return contrib.infer(node, scan.shapes, scan.dtypes, scan.values)
        types = {i: kind for i in node.input if i and (kind := scan.type_of(i)) is not None}
        if len(types) < len({i for i in node.input if i}):
            return []
        data = {i: numpy_helper.from_array(v) for i, v in zip(node.input, values, strict=False) if v is not None}
        try:
            with killable():
                found = shape_inference.infer_node_outputs(
                    schema,
                    node,
                    types,
                    data,
                    opset_imports=shared.opsets,
                    ir_version=min(shared.model.proto.ir_version, onnx.IR_VERSION),
                )
        except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
            scan.failures.append(f"{node.op_type} {node.name!r}: {str(error).splitlines()[0]}")
            return []
        answers: list[tuple[int, Shape | None]] = []
        for name in node.output:
            kind = found[name].tensor_type if name in found else None
            if kind is None or not kind.elem_type:
                answers.append((0, None))
                continue
            dims = kind.shape.dim
            known = kind.HasField("shape") and all(d.HasField("dim_value") for d in dims)
            answers.append((kind.elem_type, tuple(d.dim_value for d in dims) if known else None))
            if known and _vanishes([d.dim_value for d in dims], [scan.shapes.get(i, ()) for i in node.input]):
                scan.failures.append(f"{node.op_type} {node.name!r}: nothing is left of an axis")
        if any(shape is None for _, shape in answers):
            ours = contrib.infer(node, scan.shapes, scan.dtypes, scan.values)
            answers = [a if a[1] is not None else b for a, b in zip_longest(answers, ours, fillvalue=(0, None))]
        return answers


def _vanishes(sizes: Sequence[int], inputs: Sequence[Shape]) -> bool:
    """Whether a size is negative, or zero though no input is empty: the numbers for the symbolic dims are too small."""
    return any(n < 0 for n in sizes) or (0 in sizes and not any(0 in shape for shape in inputs))


def constant_value(model: Model, node: onnx.NodeProto) -> np.ndarray | None:
    """The value of a `Constant` node; None for strings and sparse values."""
    attribute = node.attribute[0] if node.attribute else onnx.AttributeProto()
    if attribute.name == "value":
        return model.array(attribute.t)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(helper.get_attribute_value(attribute), np.int64)
    if attribute.name in ("value_float", "value_floats"):
        return np.array(helper.get_attribute_value(attribute), np.float32)
    return None
