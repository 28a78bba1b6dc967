"""Static shapes and values of every tensor of a graph.

Symbolic input dims are replaced by numbers; one forward scan then alternates the shape functions of
`onnx.defs` with the evaluation of the small integer subgraphs that exporters use to compute shapes. Beside the
numbers it keeps what every size and entry is made of (`model/shapes/dynamic.py`): what depends on no symbol is static.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from onnxprune.model import control_flow
from onnxprune.model.shapes import contrib
from onnxprune.model.shapes.constant_fold import EVALUATORS
from onnxprune.model.shapes.dynamic import Unknowns
from onnxprune.model.shapes.entries import Entries
from onnxprune.model.shapes.polynomials import Dim, Dims, is_known, symbol
from onnxprune.model.shapes.symbols import candidate_sizes, dims_of, symbolic_dims
from onnxprune.termination import killable

if TYPE_CHECKING:
    from onnxprune.model.model import Model

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]
# The sizes of an output as a shape function tells them: None where it does not, for an axis or altogether.
Answer = Sequence[Dim | None] | None

# Values larger than this are not tracked: index tables of windowed attention have some 10^4 entries.
LARGEST_VALUE = 1 << 20
# Float values matter only as scalars on the way to a shape (floor(size * scale)); integers and booleans always.
LARGEST_FLOAT = 64


@dataclass(frozen=True)
class Facts:
    """What is known before anything runs.

    Attributes:
        shapes: tensor name -> sizes at the numbers in `sizes`; absent where unknown.
        dtypes: tensor name -> `TensorProto` data type.
        values: tensor name -> value, only where it depends on nothing that the run alone knows.
        seen: tensor name -> value at the numbers in `sizes`, the dynamic ones included.
        dims: tensor name -> sizes as polynomials over the symbolic dims, where some are no numbers.
        entries: tensor name -> the same for values.
        sizes: symbolic dim -> the number that stood for it.
    """

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    values: Mapping[str, np.ndarray]
    seen: Mapping[str, np.ndarray]
    dims: Mapping[str, Dims]
    entries: Mapping[str, Entries | None]
    sizes: Mapping[str, int]

    @cached_property
    def dynamic(self) -> Mapping[str, frozenset[int]]:
        """Tensor name -> the axes whose size the run alone knows."""
        return {name: frozenset(a for a, d in enumerate(dims) if not is_known(d)) for name, dims in self.dims.items()}


@dataclass
class _Scan:
    """One forward scan, filled node by node."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

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
        known = len(shared.unsteady) + len(shared.varying)
        facts = _accepted(shared, dict(sizes or {}))
        if len(shared.unsteady) + len(shared.varying) == known:
            return facts


def _accepted(shared: _Shared, given: dict[str, int]) -> Facts:
    """The scan at the first numbers that the graph accepts."""
    symbols = symbolic_dims(shared.model.proto.graph)
    first: tuple[_Scan, Unknowns] | None = None
    for numbers, _ in candidate_sizes(symbols, given):
        scan, unknowns = _scan(shared, given | numbers, frozenset(symbols))
        if first is None or not scan.failures:
            first, chosen = (scan, unknowns), given | numbers
        if not scan.failures:
            break
    assert first is not None
    scan, unknowns = first
    for failure in scan.failures[:3]:
        logger.debug("shape inference: %s", failure)
    values = {name: value for name, value in scan.values.items() if name not in unknowns.values}
    return Facts(scan.shapes, scan.dtypes, values, scan.values, unknowns.dims, unknowns.values, chosen)


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
        self.infos = {v.name: v for v in (*proto.graph.value_info, *proto.graph.output)}
        self.opsets = list(proto.opset_import)
        self.versions = {o.domain: o.version for o in self.opsets}
        self.versions.setdefault("", self.versions.get("ai.onnx", 1))
        # What loops carry from step to step whose shape changes on the way.
        self.unsteady: set[str] = set()
        # Axes of it whose size does.
        self.varying: set[tuple[str, int]] = set()
        self.answers: dict[tuple[object, ...], list[tuple[int, Answer]]] = {}


def _scan(shared: _Shared, sizes: Mapping[str, int], symbols: frozenset[str]) -> tuple[_Scan, Unknowns]:
    """Scan once, at numbers and with symbols."""
    weights, graph = shared.weights, shared.model.proto.graph
    scan = _Scan(dict(weights.shapes), dict(weights.dtypes), dict(weights.values))
    step = _Step(shared, scan, Unknowns(scan), sizes, symbols)
    for value in graph.input:
        step.declared(value)
    for node in graph.node:
        if node.op_type != "Constant" or node.domain:
            step.node(node)
            step.follow(node)
    return scan, step.unknowns


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
    unknowns: Unknowns
    sizes: Mapping[str, int]
    symbols: frozenset[str]

    def declared(self, value: onnx.ValueInfoProto) -> None:
        """Take the shape that the file declares, if all of it is known."""
        stored = value.name in self.shared.weights.shapes
        if value.name in self.shared.model.overridable or (not stored and _put_info(self.scan, value, self.sizes)):
            self.unknowns.put(value.name, self._declared(value))

    def _declared(self, value: onnx.ValueInfoProto) -> Dims:
        return tuple(d if isinstance(d, int) else symbol(d) for d in dims_of(value))

    def node(self, node: onnx.NodeProto) -> None:
        scan = self.scan
        if control_flow.is_begin(node) or control_flow.is_flat(node):
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
        for name in node.output:
            if name in self.shared.infos:
                _put_info(scan, self.shared.infos[name], self.sizes)

    def follow(self, node: onnx.NodeProto) -> None:
        """What of the outputs depends on symbols."""
        unknowns = self.unknowns
        if control_flow.is_begin(node) or control_flow.is_flat(node):
            unknowns.flow(node, self.shared.varying)
        elif unknowns.touches(node) and (node.op_type not in _SAME_SHAPE or node.domain or len(node.output) > 1):
            unknowns.node(node, lambda: self._dims(node))
        elif unknowns.touches(node):
            unknowns.node(node, lambda: [unknowns.dims_of(node.input[0])])

    def _dims(self, node: onnx.NodeProto) -> list[Sequence[Dim | None] | None]:
        """The sizes of the outputs by the operator's shape function, or as the file declares them."""
        unknowns, scan = self.unknowns, self.scan
        values = {i: v for i in node.input if i and (v := unknowns.static(i)) is not None}
        dims = {i: unknowns.dims_of(i) for i in node.input if i}
        answers = self._asked(node, dims, values)
        answers = self._with_ours(node, answers, dims, values)
        made: list[Sequence[Dim | None] | None] = []
        for slot, name in enumerate(node.output):
            found = answers[slot][1] if slot < len(answers) else None
            info = self.shared.infos.get(name)
            if found is None and info is not None and name in scan.shapes:
                known = self._declared(info)
                found = known if self.symbols.issuperset(str(d) for d in known if not is_known(d)) else None
            made.append(found)
        return made

    def _flow(self, node: onnx.NodeProto) -> None:
        """What a body is given, and what comes out of the bodies of a node."""
        control_flow.infer(node, self.scan, self.shared.unsteady, self.unknowns.static(node.input[0]))
        counted = control_flow.begins(node)[0] if control_flow.is_begin(node) else 0
        for slot, name in enumerate(node.output):
            known = name in self.scan.shapes and slot >= counted
            if name in self.shared.infos and not known and name not in self.shared.unsteady:
                _put_info(self.scan, self.shared.infos[name], self.sizes)

    def _evaluate(self, node: onnx.NodeProto) -> bool:
        scan = self.scan
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
        """Ask the operator's shape function."""
        scan = self.scan
        dims = {i: scan.shapes[i] for i in node.input if i in scan.shapes}
        answers = self._asked(node, dims, scan.values)
        answers = self._with_ours(node, answers, dims, scan.values)
        complete = bool(answers)
        for name, (dtype, found) in zip(node.output, answers, strict=False):
            if not name:
                continue
            if dtype:
                scan.dtypes[name] = dtype
            if found is None or None in found:
                complete = False
                continue
            shape = [n for n in found if isinstance(n, int)]
            scan.put(name, dtype, shape)
            if _vanishes(shape, [scan.shapes.get(i, ()) for i in node.input]):
                scan.failures.append(f"{node.op_type} {node.name!r}: nothing is left of an axis")
        return complete

    def _with_ours(
        self,
        node: onnx.NodeProto,
        answers: list[tuple[int, Answer]],
        dims: Mapping[str, Dims],
        values: Mapping[str, np.ndarray],
    ) -> list[tuple[int, Answer]]:
        """Answers of onnx, and our own where it has none."""
        if answers and all(found is not None and None not in found for _, found in answers):
            return answers
        ours = contrib.infer(node, dims, self.scan.dtypes, values)
        return [
            b if a[1] is None or (None in a[1] and b[1] is not None) else a
            for a, b in zip_longest(answers, ours, fillvalue=(0, None))
        ]

    def _asked(
        self, node: onnx.NodeProto, dims: Mapping[str, Dims], values: Mapping[str, np.ndarray]
    ) -> list[tuple[int, Answer]]:
        """The answers of onnx, which is asked once about nodes that look alike."""
        scan, shared = self.scan, self.shared
        small = {i: values[i] for i in node.input if i in values and values[i].size <= 1024}
        key = (
            node.domain,
            node.op_type,
            tuple(a.SerializeToString() for a in node.attribute),
            tuple((scan.dtypes.get(i), dims.get(i)) if i else None for i in node.input),
            tuple(small[i].tobytes() if i in small else None for i in node.input),
            tuple(map(bool, node.output)),
        )
        answers = shared.answers.get(key)
        if answers is None:
            answers = self._ask(node, dims, small)
            if answers:  # a refusal is asked again, since every scan counts its own
                shared.answers[key] = answers
        return answers

    def _ask(
        self, node: onnx.NodeProto, dims: Mapping[str, Dims], values: Mapping[str, np.ndarray]
    ) -> list[tuple[int, Answer]]:
        scan, shared = self.scan, self.shared
        node = contrib.standard(node)
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = defs.get_schema(node.op_type, shared.versions.get(domain, 1), domain)
        except defs.SchemaError:
            return []
        named: dict[str, Dim] = {}
        types = {i: kind for i in node.input if i and (kind := self._type(i, dims.get(i), named)) is not None}
        if len(types) < len({i for i in node.input if i}):
            return []
        data = {i: numpy_helper.from_array(v) for i, v in values.items()}
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
            if not named:
                scan.failures.append(f"{node.op_type} {node.name!r}: {str(error).splitlines()[0]}")
            return []
        answers: list[tuple[int, Answer]] = []
        for name in node.output:
            kind = found[name].tensor_type if name in found else None
            if kind is None or not kind.elem_type:
                answers.append((0, None))
            elif not kind.HasField("shape"):
                answers.append((kind.elem_type, None))
            else:
                read = [d.dim_value if d.HasField("dim_value") else named.get(d.dim_param) for d in kind.shape.dim]
                answers.append((kind.elem_type, tuple(read)))
        return answers

    def _type(self, name: str, dims: Dims | None, named: dict[str, Dim]) -> onnx.TypeProto | None:
        """The type of a tensor as onnx is told it; `named` gets what its symbols stand for."""
        if dims is None or all(map(is_known, dims)):
            return self.scan.type_of(name)
        named.update((str(d), d) for d in dims if not is_known(d))
        return helper.make_tensor_type_proto(
            self.scan.dtypes[name], [d if isinstance(d, int) else str(d) for d in dims]
        )


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
