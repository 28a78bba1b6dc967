"""Layers that read groups: their weights, whose every row is, and the second moments of what enters them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxprune.layers import (
    LinearLayer,
    RecurrentLayer,
    layer_weight,
    recurrent_layer,
    weight_axes,
    weighted_layer,
)
from onnxprune.model.run_order import tappable
from onnxprune.runtime import ActivationReader, Moments, SpillBuffer, routes_of
from onnxprune.tracing import Groups, NodeView, as_field
from onnxprune.typing import Array

ROWS = 16384
# Above this D, inputs count as uncorrelated: the inverse is cubic in D.
WIDEST = 5120


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Rows that layers read.

    Attributes:
        mean: float64[D].
        second: their centred second moment, float32[D, D], or its diagonal [D] for wide rows.
    """

    mean: Array
    second: Array


@dataclass(frozen=True, eq=False)
class MeasuredReader:
    """A layer that reads groups.

    Attributes:
        weight: its weights [D, O].
        owner: index of the class of every row of `weight`; -1 where it cannot go.
        inputs: what is known of its inputs; one object for all layers that read the same rows.
        view: its node.
        way: of a recurrent layer, which of its directions.
    """

    weight: Array
    owner: Array
    inputs: InputMoments
    view: NodeView
    way: int = 0


@dataclass(frozen=True, eq=False)
class _Read:
    """A layer that reads groups, before its inputs are known.

    Attributes:
        view: its node.
        weight: its weights [D, O].
        owner: as in `MeasuredReader`.
        tensors: what its rows are made of.
        rows: makes rows [1, n, D] of the values of `tensors`, at most so many.
        reading: equal where layers take equal rows of equal tensors.
        way: of a recurrent layer, which of its directions.
        parted: how many of the first inputs are not re-fitted together with the others; 0 where all are.
    """

    view: NodeView
    weight: Array
    owner: Array
    tensors: tuple[str, ...]
    rows: Callable[[Sequence[Array], int, np.random.Generator], Array]
    reading: Hashable
    way: int = 0
    parted: int = 0

    @property
    def source(self) -> Hashable:
        """What its rows are: equal for layers that read the same."""
        return self.tensors, self.reading


def measured_readers(groups: Groups, runs: Sequence[Mapping[str, Array]], store: SpillBuffer) -> list[MeasuredReader]:
    """Measure all layers that read groups.

    Args:
        groups: the traced original.
        runs: inputs.
        store: keeps their arrays.

    Returns:
        The layers, in graph order.
    """
    model = groups.tracing.model
    routes = routes_of(model, runs)
    taps = tappable(model, routes)
    views = [view for view, rule in groups.tracing.views if rule is not None]
    found = [
        r
        for v in views
        for r in (*_of_matrix(groups, v), *_of_recurrence(groups, v))
        if taps.issuperset((*r.tensors, v.node.output[0]))  # some run comes here
    ]
    rng = np.random.default_rng(0)
    most = max(1, ROWS // max(len(runs), 1))
    different = {read.source: read for read in reversed(found)}
    asked = [name for read in found if different[read.source] is read for name in read.tensors]
    inputs: dict[Hashable, InputMoments] = {}
    with ActivationReader(model, runs, asked, routes=routes) as walk:
        for read in found:
            if read.source not in inputs:
                mean, second = _moments(_rows(walk, read, most, rng), len(read.owner))
                if second.ndim == 2:
                    second[: read.parted, read.parted :] = second[read.parted :, : read.parted] = 0
                inputs[read.source] = InputMoments(mean, store.keep(second))
    return [MeasuredReader(store.keep(r.weight), r.owner, inputs[r.source], r.view, r.way) for r in found]


def _rows(walk: ActivationReader, read: _Read, most: int, rng: np.random.Generator) -> Iterator[Array]:
    """The rows of a layer, part by part; at most so many of every run."""
    for visits in walk.visits(list(read.tensors)):
        taken = visits[:: max(1, len(visits) // most)]
        for visit in taken:
            yield read.rows([visit[name] for name in read.tensors], max(1, most // len(taken)), rng)


def _of_matrix(groups: Groups, view: NodeView) -> Iterator[_Read]:
    """A layer with one matrix that reads a group."""
    layer = weighted_layer(view)
    owner = None if layer is None else _owner(groups, view, layer)
    if layer is not None and owner is not None:

        def rows(values: Sequence[Array], most: int, rng: np.random.Generator) -> Array:
            assert layer is not None
            return layer.input_rows(values[0], layer.sample_positions(values[0], most, rng))[:1]

        weight = layer.as_matrix(layer_weight(groups.tracing, layer))[0].astype(np.float32) * np.float32(layer.scale)
        yield _Read(view, weight, owner, (layer.input,), rows, reading=layer.reading)


def _of_recurrence(groups: Groups, view: NodeView) -> Iterator[_Read]:
    """The gates of every direction of a recurrent layer, which read its input and its hidden units before."""
    layer = recurrent_layer(view)
    if layer is None or not view.node.output[0]:
        return
    w, r = (groups.tracing.stored_value(name) for name in layer.weights[:2])
    assert w is not None and r is not None
    for way, matrix in enumerate(layer.matrix(w, r)):
        lines = [view.labels(slot)[2] for slot in (layer.INPUT, layer.RECURRENCE)]
        owner = np.concatenate(
            [_classes(groups, line[min(way, len(line) - 1)].reshape(-1) if line.ndim > 1 else line) for line in lines]
        )
        if (owner >= 0).any():
            tensors, parted = (view.inputs[0], view.node.output[0]), w.shape[2] if view.node.op_type == "GRU" else 0
            rows = partial(_steps, layer, way)
            weight = matrix.astype(np.float32)
            yield _Read(view, weight, owner, tensors, rows, reading=way, way=way, parted=parted)


def _steps(layer: RecurrentLayer, way: int, values: Sequence[Array], most: int, rng: np.random.Generator) -> Array:
    """What the gates of a direction read in some steps; the first state counts as zero."""
    x, states = layer.input_rows(values[0]), layer.states_before(values[1])[way]
    places = rng.permutation(len(x))[:most]
    return np.concatenate([x[places], states[places]], axis=1, dtype=np.float32)[None]


def _classes(groups: Groups, labels: Array) -> Array:
    """The classes of labels that some group may lose; -1 for others."""
    classes = np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)
    return np.where((classes >= 0) & (groups.group_of[classes] >= 0), classes, -1)


def _owner(groups: Groups, view: NodeView, layer: LinearLayer) -> Array | None:
    """The class of every row of the layer's matrix; None where the layer is no reader of a group."""
    shape, axes = weight_axes(view, layer.weight)
    owner: Array | None = None
    for axis, labels in enumerate(axes):
        matrix = layer.as_matrix(np.broadcast_to(as_field(_classes(groups, labels), axis, len(shape)), shape))
        rows = matrix[0, :, :1]
        if len(matrix) == 1 and (rows >= 0).any() and not (matrix != rows).any():
            owner = rows[:, 0] if owner is None else np.where(rows[:, 0] >= 0, rows[:, 0], owner)
    return owner


def _moments(rows: Iterator[Array], size: int) -> tuple[Array, Array]:
    """Mean and centred second moment of rows [1, n, D], in single precision; its diagonal for wide rows."""
    if size > WIDEST:
        diagonal = Moments((1, size))
        for few in rows:
            diagonal.add(few[0])
        return diagonal.mean[0], diagonal.variance[0].astype(np.float32)
    joined = stacked(rows, size)
    if not len(joined):  # no run comes here
        return np.zeros(size), np.zeros(size, np.float32)
    mean = joined.mean(axis=0, dtype=np.float64)
    joined -= mean.astype(np.float32)
    second = joined.T @ joined
    second /= len(joined)
    return mean, second


def stacked(rows: Iterator[Array], size: int) -> Array:
    """All rows, given in parts [1, n, D], as one array [n, D]; every part is let go before the next is made."""
    found, count = np.empty((ROWS, size), np.float32), 0
    for (part,) in rows:
        if count + len(part) > len(found):
            found = np.concatenate([found[:count], np.empty((max(count, len(part)), size), np.float32)])
        found[count : count + len(part)] = part
        count += len(part)
    return found[:count]
