"""One forward scan over a graph: the sizes and small values of every tensor, node by node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.model import control_flow
from onnxprune.model.graph import constant_value
from onnxprune.model.shapes import contrib
from onnxprune.model.shapes.constant_fold import EVALUATORS
from onnxprune.model.shapes.dynamic import Unknowns
from onnxprune.model.shapes.polynomials import Dim, Dims, is_known, least_symbol, symbol
from onnxprune.model.shapes.shape_functions import Answer, ShapeFunctions
from onnxprune.model.shapes.stand_ins import STAND_IN, counting, placing, value_for
from onnxprune.model.shapes.symbols import dims_of
from onnxprune.typing import Shape

if TYPE_CHECKING:
    from onnxprune.model.model import Model


# Values larger than this are not tracked: index tables of windowed attention have some 10^4 entries.
LARGEST_VALUE = 1 << 20
# Float values matter as scalars on the way to a shape (floor(size * scale)), and where places are computed from them;
# integers and booleans always.
LARGEST_FLOAT = 64


@dataclass
class Scan:
    """One forward scan, filled node by node."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    open: set[tuple[str, int]] = field(default_factory=set)
    placing: AbstractSet[str] = frozenset()
    failures: list[str] = field(default_factory=list)

    def put(self, name: str, dtype: int, shape: Sequence[int]) -> None:
        """Note type and sizes of a tensor."""
        self.shapes[name] = tuple(shape)
        self.dtypes[name] = dtype

    def put_value(self, name: str, value: np.ndarray, dtype: int | None = None) -> None:
        """Note type and sizes of a tensor, and its value if that is small enough to be of use."""
        self.put(name, dtype or helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        limit = LARGEST_VALUE if value.dtype.kind in "iub" or name in self.placing else LARGEST_FLOAT
        if value.size <= limit:
            self.values[name] = value

    def resize(self, tensor: str, shape: Shape) -> None:
        """Take other numbers for the sizes of a tensor, whose value does not fit then."""
        if shape != self.shapes[tensor]:
            self.shapes[tensor] = shape
            self.values.pop(tensor, None)

    def assume(self, name: str, dtype: int, found: Sequence[int | None]) -> None:
        """Take stand-ins for the sizes that nobody tells."""
        self.put(name, dtype, [STAND_IN if n is None else n for n in found])
        self.open.update((name, axis) for axis, n in enumerate(found) if n is None)


class SharedScan:
    """What all scans of a model share: constants, declarations, and the shape functions' answers."""

    def __init__(self, model: Model) -> None:
        proto = model.proto
        self.model = model
        self.weights = Scan()
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
        versions = {o.domain: o.version for o in proto.opset_import}
        versions.setdefault("", versions.get("ai.onnx", 1))
        self.functions = ShapeFunctions(model, versions)
        self.counting, self.placing = counting(proto.graph), placing(proto.graph)
        # What loops carry from step to step whose shape changes on the way.
        self.unsteady: set[str] = set()
        # Axes of it whose size does.
        self.varying: set[tuple[str, int]] = set()
        # Symbolic dim -> the least number at which every window of a convolution fits into what it moves over.
        self.least: dict[str, int] = {}
        self.running = _running(proto.graph)


def _running(graph: onnx.GraphProto) -> frozenset[str]:
    """The tensors that every run makes, whatever the inputs are: those that outputs need, in a graph without bodies."""
    needed = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if (
            control_flow.is_body_start(node)
            or control_flow.is_flat(node)
            or any(a.HasField("g") for a in node.attribute)
        ):
            return frozenset()
        if not needed.isdisjoint(node.output):
            needed.update(filter(None, node.input))
    return frozenset(needed)


def scan_at(shared: SharedScan, sizes: Mapping[str, int], symbols: frozenset[str]) -> tuple[Scan, Unknowns]:
    """Scan once, at numbers and with symbols."""
    weights, graph = shared.weights, shared.model.proto.graph
    scan = Scan(dict(weights.shapes), dict(weights.dtypes), dict(weights.values), dict(sizes), placing=shared.placing)
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


def _put_info(scan: Scan, value: onnx.ValueInfoProto, sizes: Mapping[str, int]) -> bool:
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

    shared: SharedScan
    scan: Scan
    unknowns: Unknowns
    sizes: Mapping[str, int]
    symbols: frozenset[str]

    def declared(self, value: onnx.ValueInfoProto) -> None:
        """Take the shape that the file declares, if all of it is known."""
        stored = value.name in self.shared.weights.shapes
        if value.name in self.shared.model.overridable or (not stored and _put_info(self.scan, value, self.sizes)):
            self._guess(value.name)
            self.unknowns.put(value.name, self._declared(value))

    def _declared(self, value: onnx.ValueInfoProto) -> Dims:
        return tuple(d if isinstance(d, int) else symbol(d, self.shared.least.get(d, 0)) for d in dims_of(value))

    def node(self, node: onnx.NodeProto) -> None:
        scan = self.scan
        if control_flow.is_body_start(node) or control_flow.is_flat(node):
            self._flow(node)
            return
        if self._evaluate(node):
            return
        if node.op_type in _SAME_SHAPE and not node.domain and node.input[0] in scan.shapes:
            scan.put(node.output[0], scan.dtypes[node.input[0]], scan.shapes[node.input[0]])
            if len(node.output) == 1:
                return
        self._infer(node)
        for name in node.output:
            self._guess(name)

    def _guess(self, name: str) -> None:
        """A value that stands for that of a small list which sizes are computed from."""
        scan = self.scan
        if name in self.shared.counting and name not in scan.values and name in scan.dtypes:
            value = value_for(scan.dtypes[name], scan.shapes.get(name))
            if value is not None:
                scan.values[name] = value
                self.unknowns.guessed.add(name)

    def follow(self, node: onnx.NodeProto) -> None:
        """What of the outputs depends on symbols."""
        unknowns = self.unknowns
        if control_flow.is_body_start(node) or control_flow.is_flat(node):
            unknowns.flow(node, self.shared.varying)
        elif not unknowns.touches(node) and not unknowns.is_open(node):
            return
        elif node.op_type not in _SAME_SHAPE or node.domain or len(node.output) > 1:
            unknowns.node(node, lambda: self._dims(node))
        else:
            unknowns.node(node, lambda: [unknowns.dims_of(node.input[0])])
        if node.op_type == "Conv" and not node.domain and node.output[0] in self.shared.running:
            self._fits(node)

    def _fits(self, node: onnx.NodeProto) -> None:
        """What the windows of a convolution that runs in any case say of symbols: the runtime refuses smaller ones."""
        for size in self.unknowns.dims.get(node.output[0], ())[2:]:
            found = least_symbol(size, 1)
            if found is not None and found[0] in self.symbols:
                name, least = found
                self.shared.least[name] = max(least, self.shared.least.get(name, 0))

    def _dims(self, node: onnx.NodeProto) -> list[Sequence[Dim | None] | None]:
        """The sizes of the outputs by the operator's shape function, or as the file declares them."""
        unknowns, scan = self.unknowns, self.scan
        values = {i: v for i in node.input if i and (v := unknowns.static(i)) is not None}
        dims = {i: unknowns.dims_of(i) for i in node.input if i}
        answers = self._asked(node, dims, values)
        made: list[Sequence[Dim | None] | None] = []
        for slot, name in enumerate(node.output):
            found = answers[slot][1] if slot < len(answers) else None
            info = self.shared.infos.get(name)
            if info is not None and name in scan.shapes and (found is None or None in found):
                known = [d if is_known(d) or str(d) in self.symbols else None for d in self._declared(info)]
                found = known if found is None else [k if d is None else d for d, k in zip(found, known, strict=True)]
            made.append(found)
        return made

    def _flow(self, node: onnx.NodeProto) -> None:
        """What a body is given, and what comes out of the bodies of a node."""
        control_flow.infer_body(node, self.scan, self.shared.unsteady, self.unknowns.static(node.input[0]))
        counted = control_flow.body_start_outputs(node)[0] if control_flow.is_body_start(node) else 0
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
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            self._failed(node, str(error))
            return False
        for name, value in zip(node.output, results, strict=False):
            if name:
                scan.put_value(name, np.asarray(value))
        return True

    def _failed(self, node: onnx.NodeProto, why: str) -> None:
        """The numbers for the symbolic dims do not fit, unless it is stand-ins that do not."""
        if not self.unknowns.guesses_at(node):
            self.scan.failures.append(f"{node.op_type} {node.name!r}: {why}")

    def _infer(self, node: onnx.NodeProto) -> None:
        """Ask the operator's shape function; where it tells nothing, believe the file."""
        scan = self.scan
        answers = self._sizes(node)
        for slot, name in enumerate(node.output):
            dtype, told = answers[slot] if slot < len(answers) else (0, None)
            if not name:
                continue
            if dtype:
                scan.dtypes[name] = dtype
            found = self._with_declared(name, told)
            if found is None or name not in scan.dtypes:
                continue
            scan.assume(name, scan.dtypes[name], found)
            if told is not None and _vanishes(told, [scan.shapes.get(i, ()) for i in node.input]):
                self._failed(node, "nothing is left of an axis")

    def _with_declared(self, name: str, told: Sequence[int | None] | None) -> Sequence[int | None] | None:
        """Sizes that a shape function tells, and those that the file declares where it tells none."""
        value = self.shared.infos.get(name)
        if value is None or (told is not None and None not in told):
            return told
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.elem_type:
            return told
        self.scan.dtypes[name] = kind.elem_type
        if not kind.HasField("shape"):
            return told
        return _numbers(told, [d if isinstance(d, int) else self.sizes.get(d) for d in dims_of(value)])

    def _sizes(self, node: onnx.NodeProto) -> list[tuple[int, Sequence[int | None] | None]]:
        """(type, numbers for the sizes) of every output.

        Where stand-ins take part, no number must come of their being equal or unequal: sizes are asked with symbols in
        their place, and only what remains open is taken from what the stand-ins give.
        """
        scan, unknowns = self.scan, self.unknowns
        shapes = {i: scan.shapes[i] for i in node.input if i in scan.shapes}
        plain = self._asked(node, shapes, scan.values)
        if not unknowns.guesses_at(node):
            return [(dtype, _numbers(found)) for dtype, found in plain]
        dims = {
            i: tuple(
                d if a in unknowns.loose(i) else n for a, (d, n) in enumerate(zip(unknowns.dims_of(i), s, strict=True))
            )
            for i, s in shapes.items()
        }
        values = {i: scan.values[i] for i in node.input if i in scan.values and i not in unknowns.guessed}
        told = self._asked(node, dims, values)
        return [
            (dtype or other, _numbers(found, rest))
            for (dtype, found), (other, rest) in zip_longest(told, plain, fillvalue=(0, None))
        ]

    def _asked(
        self, node: onnx.NodeProto, dims: Mapping[str, Dims], values: Mapping[str, np.ndarray]
    ) -> list[tuple[int, Answer]]:
        """Answers of onnx, and our own where it has none."""
        dtypes = self.scan.dtypes
        answers, failure = self.shared.functions.ask(node, dims, dtypes, values)
        if failure:
            self._failed(node, failure)
        if answers and all(found is not None and None not in found for _, found in answers):
            return answers
        ours = contrib.infer_contrib(node, dims, dtypes, values)
        return [
            b if a[1] is None or (None in a[1] and b[1] is not None) else a
            for a, b in zip_longest(answers, ours, fillvalue=(0, None))
        ]


def _numbers(*answers: Answer) -> Sequence[int | None] | None:
    """The numbers among sizes, from the first of the answers that has one for an axis."""
    known = [found for found in answers if found is not None]
    if not known:
        return None
    fitting = [found for found in known if len(found) == len(known[0])]
    return [next((n for n in sizes if isinstance(n, int)), None) for sizes in zip(*fitting, strict=True)]


def _vanishes(sizes: Sequence[int | None], inputs: Sequence[Shape]) -> bool:
    """Whether a size is negative, or zero though no input is empty: the numbers for the symbolic dims are too small."""
    return any(n is not None and n < 0 for n in sizes) or (0 in sizes and not any(0 in shape for shape in inputs))
