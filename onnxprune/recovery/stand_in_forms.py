"""What stands for a block that was taken out: the affine map of what enters it that is nearest to what left it.

With x rows of what enters, in the model as it is by then, and y rows of what left in the original, centred, the map is
T = (x'x + l I)^-1 (x'y + l I): ridge regression towards the identity. It takes one of these forms:

* `fold`: a layer that writes what enters, as the last of a residual branch does, is fitted so that the stream behind it
  is y. No node is added. With A what the layer gives, this is W T of ReplaceMe (Shopkhoev et al., "ReplaceMe: Network
  Simplification via Depth Pruning and Transformer GraphBlock Linearization", 2025), where T need not be square.
* `map`: a product with a matrix D x D, or a convolution 1 x 1.
* `scale`: every channel is scaled and shifted.

Held-out rows judge how much ridge there is, and the outputs on held-out samples which form it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.layers import LinearLayer, Parameters, channel_axis, linear_layer
from onnxprune.model import Names
from onnxprune.model.tensors import dtype_of
from onnxprune.recovery.downstream import Downstream, factor_of, flat_bounds
from onnxprune.recovery.fits import Fitted, Rows
from onnxprune.recovery.spans import FOLD, MAP, SCALE, Span, StandIn
from onnxprune.recovery.targets import WIDEST
from onnxprune.tracing import Groups
from onnxprune.typing import Array


def stand_in_fits(groups: Groups, parameters: Parameters, span: Span) -> Iterator[StandInFit]:
    """List all forms that a stand-in for a span may take.

    Args:
        groups: the traced original.
        parameters: the flat model in which a node hands on what enters the span.
        span: what was taken out.

    Yields:
        The forms; what one of them writes goes into `parameters`.
    """
    yield from _writers(groups, parameters, span)
    size = _Scaled(groups, parameters, span).size
    if size and size <= WIDEST:
        yield _Mapped(groups, parameters, span)
    if size:
        yield _Scaled(groups, parameters, span)


# --- forms -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StandInFit(ABC):
    """Parameters that make what enters a span what left it.

    Attributes:
        groups: the traced original.
        parameters: the model without the span.
        span: what was taken out.
    """

    groups: Groups
    parameters: Parameters
    span: Span

    @property
    @abstractmethod
    def form(self) -> str:
        """Name of the form."""

    @property
    @abstractmethod
    def tapped_tensors(self) -> Sequence[str]:
        """Tensors of the model without the span that it looks at, besides what enters."""

    @property
    @abstractmethod
    def params(self) -> int:
        """Numbers that it adds."""

    @property
    @abstractmethod
    def start(self) -> Fitted:
        """Parameters with which nothing is changed, [groups, D, O] and [groups, O]."""

    @property
    def shifted(self) -> bool:
        """Whether there is a bias."""
        return True

    @abstractmethod
    def rows(self, new: Mapping[str, Array], exit: Array, most: int, rng: np.random.Generator) -> Rows:
        """At most so many rows of a run."""

    @abstractmethod
    def write(self, fitted: Fitted) -> None:
        """Put fitted parameters into the model."""

    def stated(self, fitted: Fitted) -> StandIn:
        """What the fitted parameters make of what enters the span."""
        return StandIn(tuple(block.name for block in self.span.blocks), self.span.exit, self.form, self.params)

    def dead_zone(self, exit: Array) -> tuple[Array, Array] | None:
        """How far the stream may lie from what left, where an activation alone reads it that is flat somewhere."""
        bounds = self._bounds
        if bounds is None:
            return None
        below, above = exit <= bounds[0], exit >= bounds[1]
        least = np.where(below, -np.inf, np.where(above, bounds[1] - exit, 0))
        most = np.where(above, np.inf, np.where(below, bounds[0] - exit, 0))
        return least.astype(np.float32), most.astype(np.float32)

    @cached_property
    def _bounds(self) -> tuple[float, float] | None:
        reader = self.parameters.only_consumer(self.span.exit)
        return None if reader is None else flat_bounds(self.parameters, reader)


@dataclass(frozen=True, eq=False)
class _Channelwise(StandInFit):
    """A form that looks at the channels of the stream."""

    @property
    def tapped_tensors(self) -> Sequence[str]:
        """None."""
        return ()

    @cached_property
    def axis(self) -> int:
        """The axis of the channels."""
        return channel_axis(self.groups, self.span.exit)

    @property
    def size(self) -> int:
        """How many channels there are; 0 where the run alone knows."""
        static, name = self.groups.static, self.span.exit
        return 0 if self.axis in static.dynamic.get(name, ()) else static.shapes[name][self.axis]

    def stated(self, fitted: Fitted) -> StandIn:
        """The map, in the precision of the stream."""
        kind = dtype_of(self.groups.static.dtypes[self.span.exit])
        factor, shift = (part.astype(kind).astype(np.float64) for part in (self.matrix(fitted), fitted[1].reshape(-1)))
        return replace(super().stated(fitted), factor=factor, shift=shift, axis=self.axis)

    @abstractmethod
    def matrix(self, fitted: Fitted) -> Array:
        """What multiplies the channels: [channels, channels], or [channels]."""

    def columns(self, value: Array, places: Array) -> Array:
        """The channels at some positions, float32[n, channels]."""
        return np.moveaxis(value, self.axis, -1).reshape(-1, value.shape[self.axis])[places].astype(np.float32)

    def _pair(self, new: Mapping[str, Array], exit: Array, most: int, rng: np.random.Generator) -> tuple[Array, ...]:
        """What enters and what left, and the room around it, at drawn positions."""
        places = rng.permutation(exit.size // exit.shape[self.axis])[:most]
        dead_zone = self.dead_zone(exit)
        return tuple(self.columns(v, places) for v in (new[self.span.entry], exit, *(dead_zone or ())))

    def put(self, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array]) -> None:
        """Put nodes in the place of the one that hands on."""
        graph = self.parameters.proto.graph
        at = next(i for i, node in enumerate(graph.node) if self.span.exit in node.output)
        del graph.node[at]
        for offset, node in enumerate(nodes):
            graph.node.insert(at + offset, node)
        kind = self.groups.static.dtypes[self.span.exit]
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(value.astype(dtype_of(kind)), name))

    def names(self, *stems: str) -> list[str]:
        """Names for what is added."""
        names = Names(self.parameters.proto.graph)
        return [names.unique(f"{self.span.exit}_{stem}") for stem in stems]


@dataclass(frozen=True, eq=False)
class _Mapped(_Channelwise):
    """A product with a matrix, or a convolution 1 x 1."""

    @property
    def form(self) -> str:
        """Name of the form."""
        return MAP

    @property
    def params(self) -> int:
        """A matrix and a bias."""
        return self.size * (self.size + 1)

    @property
    def start(self) -> Fitted:
        """The identity."""
        return np.eye(self.size)[None], np.zeros((1, self.size))

    def matrix(self, fitted: Fitted) -> Array:
        """The matrix."""
        return fitted[0][0]

    def rows(self, new: Mapping[str, Array], exit: Array, most: int, rng: np.random.Generator) -> Rows:
        """Channels of what enters, and of what left."""
        x, y, *dead_zone = self._pair(new, exit, most, rng)
        return Rows.around(x[None], y[None], (dead_zone[0][None], dead_zone[1][None]) if dead_zone else None)

    def write(self, fitted: Fitted) -> None:
        """Add the node."""
        entry, exit = self.span.entry, self.span.exit
        weight, bias, inner = self.names("map", "shift", "mapped")
        shape = self.groups.static.shapes[exit]
        if self.axis == len(shape) - 1:
            nodes = [helper.make_node("MatMul", [entry, weight], [inner])]
            nodes.append(helper.make_node("Add", [inner, bias], [exit]))
            matrix = fitted[0][0]
        else:
            nodes = [helper.make_node("Conv", [entry, weight, bias], [exit], kernel_shape=[1] * (len(shape) - 2))]
            matrix = fitted[0][0].T.reshape(self.size, self.size, *[1] * (len(shape) - 2))
        self.put(nodes, {weight: np.ascontiguousarray(matrix), bias: fitted[1][0]})


@dataclass(frozen=True, eq=False)
class _Scaled(_Channelwise):
    """A factor and a shift for each channel."""

    @property
    def form(self) -> str:
        """Name of the form."""
        return SCALE

    @property
    def params(self) -> int:
        """Two numbers per channel."""
        return 2 * self.size

    @property
    def start(self) -> Fitted:
        """Ones."""
        count = self.groups.static.shapes[self.span.exit][self.axis]
        return np.ones((count, 1, 1)), np.zeros((count, 1))

    def matrix(self, fitted: Fitted) -> Array:
        """A factor for each channel."""
        return fitted[0].reshape(-1)

    def rows(self, new: Mapping[str, Array], exit: Array, most: int, rng: np.random.Generator) -> Rows:
        """Every channel by itself."""
        x, y, *dead_zone = (values.T[:, :, None] for values in self._pair(new, exit, most, rng))
        return Rows.around(x, y, (dead_zone[0], dead_zone[1]) if dead_zone else None)

    def write(self, fitted: Fitted) -> None:
        """Add the nodes."""
        factor, bias, inner = self.names("scale", "shift", "scaled")
        sizes = [-1, *[1] * (len(self.groups.static.shapes[self.span.exit]) - 1 - self.axis)]
        nodes = [helper.make_node("Mul", [self.span.entry, factor], [inner])]
        nodes.append(helper.make_node("Add", [inner, bias], [self.span.exit]))
        self.put(nodes, {factor: fitted[0].reshape(sizes), bias: fitted[1].reshape(sizes)})


@dataclass(frozen=True, eq=False)
class _Folded(StandInFit):
    """A layer whose output is added to the stream that enters.

    Attributes:
        layer: the layer.
        factor: what its output is multiplied with on the way.
    """

    layer: LinearLayer
    factor: Array

    @property
    def form(self) -> str:
        """Name of the form."""
        return FOLD

    @property
    def tapped_tensors(self) -> Sequence[str]:
        """What the layer reads."""
        return (self.layer.input,)

    @property
    def params(self) -> int:
        """None: weight and bias are those of the layer."""
        return 0

    @cached_property
    def start(self) -> Fitted:
        """The parameters as they are."""
        value = self.parameters.value(self.layer.node.input[self.layer.weight])
        matrix = self.layer.as_matrix(value).astype(np.float64) * self.layer.scale
        return matrix, np.zeros(matrix.shape[::2])

    @cached_property
    def shifted(self) -> bool:
        """Whether the layer has a bias, or may get one."""
        groups, _, outputs = self.start[0].shape
        return self.parameters.bias(self.layer, groups * outputs) is not None

    def rows(self, new: Mapping[str, Array], exit: Array, most: int, rng: np.random.Generator) -> Rows:
        """Inputs of the layer, and what it should give, its bias left out."""
        layer, read = self.layer, new[self.layer.input]
        places = layer.sample_positions(read, most, rng)
        x = layer.input_rows(read, places)
        weight = self.start[0].astype(np.float32)
        downstream = Downstream("", "", (), self.factor)
        lost = ((exit - new[self.span.entry]) * downstream.inverse).astype(np.float32)
        y = x @ weight + layer.output_rows(lost, places, weight.shape[2])
        dead_zone = self.dead_zone(exit)
        if dead_zone is None:
            return Rows(x, y)
        ends = [np.where(np.isinf(end), end, end * downstream.inverse) for end in dead_zone]
        low, high = (layer.output_rows(end.astype(np.float32), places, weight.shape[2]) for end in ends)
        return Rows.around(x, y, (low, high))

    def write(self, fitted: Fitted) -> None:
        """Store weight and bias."""
        name = self.layer.node.input[self.layer.weight]
        shape = self.parameters.value(name).shape
        self.parameters.store(name, self.layer.tensor(fitted[0] / self.layer.scale, shape))
        self.parameters.shift(self.layer, fitted[1].reshape(-1))


def _writers(groups: Groups, parameters: Parameters, span: Span) -> Iterator[_Folded]:
    """Layers whose outputs are added to what enters a span, and are read nowhere else."""
    sites = {site.node.output[0]: site for site, _ in groups.tracing.views if site.node.output}
    made = {o: node for node in parameters.proto.graph.node for o in node.output if o}
    rank = len(groups.static.shapes[span.entry])
    waiting = [(span.entry, np.ones((), np.float32))]
    while waiting:
        tensor, factor = waiting.pop()
        node, site = made.get(tensor), sites.get(tensor)
        if node is None or (tensor != span.entry and parameters.only_consumer(tensor) is None):
            continue
        layer = None if site is None or site.node.op_type != node.op_type else linear_layer(site, node)
        if layer is not None:
            if _is_fittable(parameters, layer) and not (factor < 0).any():
                yield _Folded(groups, parameters, span, layer, factor)
            continue
        data = [name for name in node.input if name and not parameters.is_constant(name)]
        if node.op_type == "Add" and len(data) == 2 and node.input[0] != node.input[1]:
            waiting += [
                (name, factor) for name in data if groups.static.shapes.get(name) == groups.static.shapes[tensor]
            ]
        elif len(data) == 1 and groups.static.shapes.get(data[0]) == groups.static.shapes[tensor]:
            step = factor_of(parameters, node, data[0], rank)
            waiting += [] if step is None else [(data[0], factor * step)]


def _is_fittable(parameters: Parameters, layer: LinearLayer) -> bool:
    """Whether a layer alone has its weight, and the weight is not too wide to be solved for."""
    name = layer.node.input[layer.weight]
    return parameters.is_own(name) and layer.as_matrix(parameters.value(name)).shape[1] <= WIDEST
