"""Repair without training: every layer that lost inputs is re-fitted to the outputs that the original gave.

For a contraction y = W x + b whose inputs x lost some positions, the layer's new weights are the ridge regression of
the original's outputs on the inputs that the pruned model gives it,

    W'^T = (S + l I)^-1 (C + l W_R^T),   b' = m_y - W' m,

with S and m the centred second moment and mean of the pruned model's inputs, C their cross moment with the original's
outputs, W_R the columns that remain and l = damping * mean(diag S). Layers are fitted in graph order, each on the
inputs that the layers in front of it, already fitted, give. A fit is kept only if it lowers the error on samples that
it has not seen. (Reconstruction as in He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017,
eq. 1; toward the ridge solution around the sliced weights.)
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune import interface
from onnxprune.cut import Cut
from onnxprune.errors import UsageError
from onnxprune.labels import Array
from onnxprune.model import Model, to_proto
from onnxprune.protos import keep
from onnxprune.rewrite import drop_dead
from onnxprune.rules.site import Site
from onnxprune.runtime import Session
from onnxprune.tracing import captured

logger = logging.getLogger(__name__)

DAMPING = 1e-2
# Spatial positions per sample and rows per layer that enter the moments: enough for a D x D moment of some thousands.
POSITIONS = 48
ROWS = 16384
# The last share of the runs is held out to judge a fit.
HELD_OUT = 0.2
# Widest layer (columns of its weight) that is fitted: the solve is cubic in it.
WIDEST = 6144


@dataclass(frozen=True)
class Fit:
    """What became of one layer.

    Attributes:
        node: name of the layer.
        before: relative error of its outputs on held-out samples, sliced only.
        after: the same with the fitted weights.
        kept: whether the fit was kept.
    """

    node: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class _Layer:
    """A contraction with a weight that lost inputs, in the original and in the pruned graph."""

    site: Site
    node: onnx.NodeProto
    index: int
    rows: Array  # bool: the outputs that remain


@dataclass(frozen=True)
class Repair:
    """What the repair did.

    Attributes:
        fits: every layer that lost inputs and could be fitted.
        before: relative squared error of the model's float outputs on held-out samples, as it was cut.
        after: the same after the repair.
        kept: whether the repaired model is the better one, and so was kept.
    """

    fits: tuple[Fit, ...]
    before: float
    after: float
    kept: bool


def least_squares(
    cut: Cut,
    pruned: Model,
    runs: Sequence[Mapping[str, Array]],
    *,
    damping: float = DAMPING,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, Repair]:
    """Re-fit the layers of `pruned` that lost inputs.

    Time grows with the square of the number of layers: every layer is fitted on the inputs that the layers in front of
    it give by now. Memory is bounded by the activations of one run and the moments of one layer.

    Args:
        cut: what was removed, with the traced original.
        pruned: the smaller model.
        runs: calibration inputs, at least two; the last ones judge the fits.
        damping: ridge weight relative to the mean of the moment's diagonal.
        progress: is told about every layer.

    Returns:
        The repaired model (the pruned one if that is no worse), and what was done.

    Raises:
        UsageError: there are fewer than two runs.
    """
    if len(runs) < 2:
        raise UsageError("calibration data: one batch is not enough to fit and to judge", hint="give more samples")
    train = max(1, min(len(runs) - 1, round(len(runs) * (1 - HELD_OUT))))
    model = replace(pruned, proto=to_proto(pruned), values={})
    layers = _layers(cut, model.proto)
    fits = []
    for number, layer in enumerate(layers, 1):
        progress(f"repairing layer {number} of {len(layers)}")
        if _width(layer.site) <= WIDEST:
            fits.append(_fit(cut, model, layer, runs, train, damping))
    before, after = (_output_error(cut, m, runs[train:]) for m in (pruned, model))
    kept = after < before
    return model if kept else pruned, Repair(tuple(fits), before, after, kept)


def _output_error(cut: Cut, other: Model, runs: Sequence[Mapping[str, Array]]) -> float:
    """Squared difference of all float outputs over their squared deviation from their mean."""
    wrong = spread = 0.0
    with Session(cut.groups.model) as one, Session(other) as two:
        for feeds in runs:
            wanted = interface.outputs(cut, one.outputs, one.run(feeds))
            for a, b in zip(wanted, two.run(interface.feeds(cut, feeds), one.outputs), strict=True):
                if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.size:
                    wrong += float(np.square(a.astype(np.float64) - b).sum())
                    spread += float(np.square(a - a.mean(axis=0, keepdims=len(a) > 1), dtype=np.float64).sum())
    return wrong / max(spread, 1e-30)


def _layers(cut: Cut, proto: onnx.ModelProto) -> list[_Layer]:
    """The layers to fit, in graph order: one weight of their own, and a contracted axis that lost positions."""
    made = {n.output[0]: (i, n) for i, n in enumerate(proto.graph.node) if n.output}
    uses: dict[str, int] = {}
    for node in proto.graph.node:
        for name in (*node.input, *captured(node)):
            uses[name] = uses.get(name, 0) + 1
    weights = {t.name for t in proto.graph.initializer}
    found = []
    for site, _ in cut.groups.tracing.sites:
        if not site.node.output or site.node.output[0] not in made or not _is_fittable(site):
            continue
        index, node = made[site.node.output[0]]
        axis = _contracted(site)
        size = site.shape(0)[axis]
        lost = not cut.kept(site.labels(0)[axis], axis, size).all()
        if lost and node.input[1] in weights and uses[node.input[1]] == 1 and node.op_type == site.node.op_type:
            out = _outputs(site)
            rows = cut.kept(site.labels(1)[out], out, site.shape(1)[out])
            found.append(_Layer(site, node, index, rows))
    return found


def _is_fittable(site: Site) -> bool:
    if site.node.op_type not in ("Conv", "Gemm", "MatMul") or len(site.node.input) < 2 or not site.is_weight(1):
        return False
    stored = site.node.input[1] in site.facts.shapes
    if (
        not stored
        or not site.constant
        or site.constant[0]
        or site.facts.dtypes.get(site.node.input[1]) != onnx.TensorProto.FLOAT
    ):
        return False
    if site.node.op_type == "Conv":
        plain = site.attrs.get("group", 1) == 1 and site.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        return plain and len(site.shape(1)) in (3, 4)
    if site.node.op_type == "Gemm":
        scaled = (site.attrs.get("alpha", 1.0), site.attrs.get("beta", 1.0)) != (1.0, 1.0)
        return not site.attrs.get("transA") and not scaled
    return len(site.shape(1)) == 2 and len(site.shape(0)) >= 2


def _contracted(site: Site) -> int:
    return 1 if site.node.op_type == "Conv" else len(site.shape(0)) - 1


def _outputs(site: Site) -> int:
    """The axis of the weight that makes the outputs."""
    if site.node.op_type == "Conv":
        return 0
    return 0 if site.node.op_type == "Gemm" and site.attrs.get("transB") else 1


# --- inputs of a layer -----------------------------------------------------------------------------------


def _inputs(
    cut: Cut, pruned: Model, layer: _Layer, runs: Sequence[Mapping[str, Array]]
) -> Iterator[tuple[Array, Array]]:
    """The layer's input in the original and in the pruned model, run by run."""
    names = layer.site.node.input[0], layer.node.input[0]
    with Session(_up_to(cut.groups.model, names[0])) as one, Session(_up_to(pruned, names[1])) as two:
        for feeds in runs:
            both = ((one, feeds), (two, interface.feeds(cut, feeds)))
            x, y = (s.run({k: v for k, v in given.items() if k in s.inputs})[0] for s, given in both)
            yield x, y


def _up_to(model: Model, tensor: str) -> Model:
    """The part of a model that computes `tensor`."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.ValueInfoProto(name=tensor))
    drop_dead(proto.graph)
    needed = {name for node in proto.graph.node for name in node.input} | {tensor}
    keep(proto.graph.input, lambda value: value.name in needed)
    return replace(model, proto=proto)


def _places(site: Site, x: Array, most: int, rng: np.random.Generator) -> Array:
    """Where rows are sampled: rows of a product, or (sample, corner...) of a convolution's patches."""
    if site.node.op_type != "Conv":
        return rng.permutation(x.size // x.shape[-1])[:most]
    kernel, pads, strides, dilations = _geometry(site)
    columns = [np.repeat(np.arange(len(x)), POSITIONS)]
    for i, size in enumerate(x.shape[2:]):
        padded = size + pads[i] + pads[i + len(kernel)]
        count = (padded - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        columns.append(rng.integers(0, count, len(columns[0])) * strides[i])
    return rng.permutation(np.stack(columns, axis=1))[:most]


def _patches(site: Site, x: Array, places: Array) -> Array:
    """Rows [n, D] of what the layer's weight is multiplied with, at `places`."""
    if site.node.op_type != "Conv":
        return x.reshape(-1, x.shape[-1])[places]
    kernel, pads, _, dilations = _geometry(site)
    sides = [(pads[i], pads[i + len(kernel)]) for i in range(len(kernel))]
    padded = np.pad(x, [(0, 0), (0, 0), *sides])
    steps = np.meshgrid(*(np.arange(k) * d for k, d in zip(kernel, dilations, strict=True)), indexing="ij")
    sample, *corner = places.T
    index = tuple(c[:, None] + step.reshape(1, -1) for c, step in zip(corner, steps, strict=True))
    taken = padded[(sample[:, None], slice(None), *index)]  # [n, positions of the kernel, channels]
    return np.ascontiguousarray(taken.transpose(0, 2, 1)).reshape(len(places), -1)


def _geometry(site: Site) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    """(kernel, pads, strides, dilations) of a convolution."""
    kernel, attrs = site.shape(1)[2:], site.attrs
    ones = [1] * len(kernel)
    pads = attrs.get("pads", [0] * 2 * len(kernel))
    return kernel, pads, attrs.get("strides", ones), attrs.get("dilations", ones)


# --- the fit ---------------------------------------------------------------------------------------------


@dataclass
class _Moments:
    """Sums over rows of the pruned model's inputs x and the original's outputs y."""

    xx: Array
    xy: Array
    x: Array
    y: Array
    count: int = 0

    def add(self, x: Array, y: Array) -> None:
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.x += x.sum(axis=0, dtype=np.float64)
        self.y += y.sum(axis=0, dtype=np.float64)
        self.count += len(x)


def _fit(cut: Cut, model: Model, layer: _Layer, runs: Sequence[Mapping[str, Array]], train: int, damping: float) -> Fit:
    site, rng = layer.site, np.random.default_rng(layer.index)
    tensor = next(t for t in model.proto.graph.initializer if t.name == layer.node.input[1])
    original = cut.groups.tracing.model.array(site.node.input[1])
    old = _matrix(site, original)[:, layer.rows]
    sliced = _matrix(site, numpy_helper.to_array(tensor)).astype(np.float64)
    moments = _Moments(
        np.zeros((len(sliced),) * 2), np.zeros(sliced.shape), np.zeros(len(sliced)), np.zeros(old.shape[1])
    )
    held: list[tuple[Array, Array]] = []
    for number, (x, x_pruned) in enumerate(_inputs(cut, model, layer, runs)):
        places = _places(site, x, max(1, ROWS // train), rng)
        rows, y = _patches(site, x_pruned, places), _patches(site, x, places) @ old
        if number < train:
            moments.add(rows, y)
        else:
            held.append((rows, y))
    has_bias = _bias(model, layer) is not None
    weight, shift = _solve(moments, sliced, damping, centred=has_bias)
    before, after = _error(held, sliced, np.zeros_like(shift)), _error(held, weight, shift)
    kept = bool(after < before)
    if kept:
        _store(tensor, (weight.T if _outputs(site) == 0 else weight).reshape(tuple(tensor.dims)))
        if has_bias:
            _add_bias(model, layer, shift)
    return Fit(site.name, before, after, kept)


def _solve(moments: _Moments, sliced: Array, damping: float, *, centred: bool) -> tuple[Array, Array]:
    """(weights [D, O], bias to add [O]) of the ridge regression around `sliced`; without a bias, not centred."""
    n = moments.count
    mean, target = (moments.x / n, moments.y / n) if centred else (np.zeros_like(moments.x), np.zeros_like(moments.y))
    second = moments.xx / n - np.outer(mean, mean)
    cross = moments.xy / n - np.outer(mean, target)
    ridge = damping * max(float(np.trace(second)) / len(second), 1e-12)
    left, right = second + ridge * np.eye(len(second)), cross + ridge * sliced
    try:
        factor = np.linalg.cholesky(left)
        weight = np.linalg.solve(factor.T, np.linalg.solve(factor, right))
    except np.linalg.LinAlgError:  # not positive definite in floating point
        weight = np.linalg.lstsq(left, right, rcond=None)[0]
    return weight, target - mean @ weight


def _error(held: Sequence[tuple[Array, Array]], weight: Array, shift: Array) -> float:
    """Relative squared error of the outputs, without the part of the bias that both have."""
    wrong = sum(float(np.square(y - (x @ weight + shift)).sum()) for x, y in held)
    mean = np.mean([y.mean(axis=0) for _, y in held], axis=0)
    return wrong / max(sum(float(np.square(y - mean).sum()) for _, y in held), 1e-30)


def _matrix(site: Site, weight: Array) -> Array:
    """A layer's weight as [D, O]."""
    return weight.reshape(len(weight), -1).T if _outputs(site) == 0 else weight


def _width(site: Site) -> int:
    """D: the columns of the layer's weight."""
    shape = site.shape(1)
    return math.prod(shape) // shape[_outputs(site)]


def _store(tensor: onnx.TensorProto, value: Array) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value.astype(dtype)), tensor.name))


def _bias(model: Model, layer: _Layer) -> tuple[onnx.NodeProto, int] | None:
    """The node and input slot of the layer's bias, if it has one that nothing else uses, or can be given one."""
    graph, node = model.proto.graph, layer.node
    uses = sum(name == other for n in graph.node for other in n.input for name in node.input[2:3])
    sizes = {t.name: tuple(t.dims) for t in graph.initializer}
    width = int(layer.rows.sum())
    if node.op_type in ("Conv", "Gemm"):
        if len(node.input) < 3 or not node.input[2]:
            return node, 2
        return (node, 2) if uses == 1 and sizes.get(node.input[2]) == (width,) else None
    readers = [n for n in graph.node if node.output[0] in n.input]
    if len(readers) == 1 and readers[0].op_type == "Add":
        slot = 1 - list(readers[0].input).index(node.output[0])
        name = readers[0].input[slot]
        if sizes.get(name) == (width,) and sum(name in n.input for n in graph.node) == 1:
            return readers[0], slot
    return None


def _add_bias(model: Model, layer: _Layer, shift: Array) -> None:
    """Add `shift` to the layer's bias; make one if there is none."""
    graph = model.proto.graph
    found = _bias(model, layer)
    if found is None:
        return
    node, slot = found
    if len(node.input) > slot and node.input[slot]:
        tensor = next(t for t in graph.initializer if t.name == node.input[slot])
        _store(tensor, numpy_helper.to_array(tensor).astype(np.float64) + shift)
        return
    taken = {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    name = next(n for n in (f"{layer.node.output[0]}_bias{'_' * i}" for i in itertools.count()) if n not in taken)
    while len(node.input) <= slot:
        node.input.append("")
    node.input[slot] = name
    graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), name))
    if model.proto.ir_version < 4:  # where every initializer must also be an input
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shift.shape))
