"""Statistics of what contractions read, on calibration inputs: streamed, nothing is kept but the accumulators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from onnxprune.layers.effective import Weights
from onnxprune.layers.readers import Reader, readers
from onnxprune.model.run_order import tappable
from onnxprune.runtime import ActivationReader, routes_of
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# Elements that are looked at in one go: what is computed on the way stays in the cache.
SLAB = 1 << 18
# Bytes of activations that one run may give at a time.
TAKEN = 1 << 28


class Moments:
    """What is known about the entries of a field over everything that was added; float64 throughout.

    Means and squared deviations of the parts are merged as in Chan, Golub and LeVeque, 1983, so that a mean which is
    large against the deviation costs no digits.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        """Make one for an activation whose field has this shape: 1 on every axis to be summed over."""
        self.shape = tuple(shape)
        self.count = 0
        self._away = tuple(a for a, n in enumerate(shape) if n == 1)
        self.mean, self._squares, self._absolute, self._zeros = (np.zeros(self.shape) for _ in range(4))

    def add(self, x: Array) -> bool:
        """Take in the activation of one run; returns whether it has the sizes of the field."""
        if x.ndim != len(self.shape) or any(n not in (1, m) for n, m in zip(self.shape, x.shape, strict=True)):
            return False
        rows = max(1, SLAB // max(1, x.size // max(1, len(x)))) if x.ndim and self.shape[0] == 1 else len(x)
        for start in range(0, len(x), max(1, rows)):
            self._add(x[start : start + rows])
        return True

    def _add(self, x: Array) -> None:
        x = x if x.dtype.kind == "f" and x.dtype.itemsize >= 4 else x.astype(np.float32)
        count = x.size // math.prod(self.shape)
        mean = x.mean(axis=self._away, keepdims=True)
        step, total = mean.astype(np.float64) - self.mean, self.count + count
        self._squares += np.square(x - mean).sum(axis=self._away, keepdims=True)
        self._squares += np.square(step) * (self.count * count / total)
        self.mean += step * (count / total)
        self._absolute += np.abs(x).sum(axis=self._away, keepdims=True)
        self._zeros += count - np.count_nonzero(x, axis=self._away, keepdims=True)
        self.count = total

    @property
    def mean_absolute(self) -> Array:
        """Mean of the absolute values."""
        return self._absolute / max(self.count, 1)

    @property
    def variance(self) -> Array:
        """Mean squared deviation from the mean."""
        return self._squares / max(self.count, 1)

    @property
    def zeros(self) -> Array:
        """Share of values that are exactly zero."""
        return self._zeros / max(self.count, 1)

    @property
    def norm(self) -> Array:
        """Root of the mean square: the norm, for any number of samples."""
        return np.sqrt(self.variance + np.square(self.mean))


class Activations:
    """The moments of everything that contractions read and some group cuts."""

    def __init__(self, groups: Groups, weights: Weights, runs: Sequence[Mapping[str, Array]]) -> None:
        """Look for the readers that runs reach; moments are taken when they are first asked for."""
        self._groups, self._runs = groups, runs
        self._routes = routes_of(groups.tracing.model, runs)
        taps = tappable(groups.tracing.model, self._routes)
        self.readers = [r for r in readers(weights) if r.made in taps and r.tensor in taps]

    def measured(self) -> Iterator[tuple[Reader, Moments]]:
        """Every reader whose moments are known, in graph order."""
        for reader in self.readers:
            found = self._moments.get((reader.tensor, reader.axis))
            if found is not None:
                yield reader, found

    def tensors(self) -> Iterator[tuple[Reader, Moments]]:
        """The same, each axis of an activation once, however many read it."""
        seen = set()
        for reader, moments in self.measured():
            if (reader.tensor, reader.axis) not in seen:
                seen.add((reader.tensor, reader.axis))
                yield reader, moments

    @cached_property
    def _moments(self) -> dict[tuple[str, int], Moments]:
        """By tensor and axis; without those whose sizes on the data are not those of the trace."""
        model = self._groups.tracing.model
        found = {(r.tensor, r.axis): Moments(r.field.shape) for r in self.readers}
        order = {o: i for i, node in enumerate(model.proto.graph.node) for o in node.output}
        tensors = sorted({tensor for tensor, _ in found}, key=lambda t: order.get(t, -1))
        with ActivationReader(model, self._runs, tensors, routes=self._routes) as walk:
            for some in self._portions(tensors):
                for values in walk.take(some):
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
