"""Statistics of the activations that contractions read, on calibration inputs; streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from onnxprune.layers.effective import Weights
from onnxprune.layers.readers import Reader, readers
from onnxprune.model.run_order import tappable
from onnxprune.runtime import ActivationReader, Moments, routes_of
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# Bytes of activations that one run may give at a time.
TAKEN = 1 << 28


class ActivationMoments(Moments):
    """The moments of an activation, with what only criteria ask for."""

    def __init__(self, shape: Sequence[int]) -> None:
        """Make one for an activation whose field has this shape: 1 on every axis to be averaged over."""
        super().__init__(shape)
        self._absolute, self._zeros = np.zeros(self.shape), np.zeros(self.shape)

    def _add(self, x: Array) -> None:
        super()._add(x)
        self._absolute += np.abs(x).sum(axis=self.axes, keepdims=True)
        self._zeros += np.equal(x, 0).sum(axis=self.axes, keepdims=True)

    @property
    def mean_absolute(self) -> Array:
        """Mean of the absolute values."""
        return self._absolute / max(self.count, 1)

    @property
    def zeros(self) -> Array:
        """Share of values that are exactly zero."""
        return self._zeros / max(self.count, 1)


class Activations:
    """The moments of everything that contractions read and some group cuts."""

    def __init__(self, groups: Groups, weights: Weights, runs: Sequence[Mapping[str, Array]]) -> None:
        """Look for the readers that runs reach; moments are taken when they are first asked for."""
        self._groups, self._runs = groups, runs
        self._routes = routes_of(groups.tracing.model, runs)
        taps = tappable(groups.tracing.model, self._routes)
        self.readers = [r for r in readers(weights) if r.made in taps and r.tensor in taps]

    def measured(self) -> Iterator[tuple[Reader, ActivationMoments]]:
        """Every reader whose moments are known, in graph order."""
        for reader in self.readers:
            found = self._moments.get((reader.tensor, reader.axis))
            if found is not None:
                yield reader, found

    def tensors(self) -> Iterator[tuple[Reader, ActivationMoments]]:
        """The same, each axis of an activation once, however many read it."""
        seen = set()
        for reader, moments in self.measured():
            if (reader.tensor, reader.axis) not in seen:
                seen.add((reader.tensor, reader.axis))
                yield reader, moments

    @cached_property
    def _moments(self) -> dict[tuple[str, int], ActivationMoments]:
        """By tensor and axis; without those whose sizes on the data are not those of the trace."""
        model = self._groups.tracing.model
        found = {(r.tensor, r.axis): ActivationMoments(r.field.shape) for r in self.readers}
        order = {o: i for i, node in enumerate(model.proto.graph.node) for o in node.output}
        tensors = sorted({tensor for tensor, _ in found}, key=lambda t: order.get(t, -1))
        with ActivationReader(model, self._runs, tensors, routes=self._routes) as walk:
            for some in self._portions(tensors):
                for values in walk.read(some):
                    for key in [k for k in found if k[0] in values]:
                        value = values[key[0]]
                        if not all(map(found[key].add, value if key[0] in walk.stacked else (value,))):
                            del found[key]
        return found

    def _portions(self, tensors: Sequence[str]) -> Iterator[list[str]]:
        """So many tensors at a time that a run's values of them stay within `TAKEN`."""
        shapes = self._groups.static.shapes
        given = self._runs[0] if self._runs else {}
        scale = max((v.size / max(1, math.prod(shapes.get(n, ()))) for n, v in given.items()), default=1.0)
        ends = np.cumsum([4 * scale * math.prod(shapes.get(t, ())) for t in tensors]) // TAKEN
        for part in np.unique(ends):
            yield [t for t, end in zip(tensors, ends, strict=True) if end == part]
