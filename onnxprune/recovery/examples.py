"""Samples to train on: shuffled by a seed, in batches that the model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.calibration import Feeds, fixed_batch, is_batched
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.typing import Array

# A training graph is built for each shape of a batch; data with more shapes than this spends its time on building.
MOST_SHAPES = 16


@dataclass(frozen=True, eq=False)
class _Pool:
    """Samples of one shape.

    Attributes:
        arrays: input -> samples on axis 0; or a run that cannot be cut.
        count: how many samples there are; 1 for a run that cannot be cut.
        size: samples of a batch.
    """

    arrays: Mapping[str, Array]
    count: int
    size: int
    is_whole: bool

    def taken(self, places: Array) -> dict[str, Array]:
        """The samples at these places."""
        return dict(self.arrays) if self.is_whole else {name: a[places] for name, a in self.arrays.items()}


@dataclass(frozen=True, eq=False)
class Examples:
    """Samples to draw batches from. A batch is a function of its number and the seed, so any run can be continued.

    Attributes:
        pools: the samples, by shape.
    """

    pools: Sequence[_Pool]

    @classmethod
    def whole(cls, runs: Sequence[Feeds]) -> Examples:
        """Runs that cannot be cut into samples."""
        return cls([_Pool(run, 1, 1, is_whole=True) for run in runs])

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(pool.count for pool in self.pools)

    @property
    def per_batch(self) -> int:
        """Samples of the largest batch."""
        return max(pool.size for pool in self.pools)

    @property
    def per_epoch(self) -> int:
        """How many batches there are before a sample comes again."""
        return sum(pool.count // pool.size for pool in self.pools)

    def draw(self, number: int, seed: int) -> dict[str, Array]:
        """Return the batch of a number, counted from 0; every epoch has an order of its own."""
        epoch, place = divmod(number, self.per_epoch)
        rng = np.random.default_rng([seed, epoch])
        batches = [
            (pool, order[i * pool.size : (i + 1) * pool.size])
            for pool in self.pools
            for order in [rng.permutation(pool.count)]
            for i in range(pool.count // pool.size)
        ]
        pool, places = batches[rng.permutation(len(batches))[place]]
        return pool.taken(places)

    def in_order(self) -> Iterator[tuple[dict[str, Array], int]]:
        """Every sample once where the batch is open (whole batches only where it is not), and how many come at once."""
        for pool in self.pools:
            for start in range(0, pool.count - pool.size + 1, pool.size):
                yield pool.taken(np.arange(start, start + pool.size)), pool.size

    def mapped(self, function: Callable[[Feeds], Mapping[str, Array]]) -> Examples | None:
        """Replace every sample by what a function makes of its batch; None where it gives no array per sample."""
        made = []
        for pool in self.pools:
            parts = []
            for start in range(0, pool.count, pool.size):
                places = np.arange(start, min(start + pool.size, pool.count))
                parts.append(function(pool.taken(places)))
                if not pool.is_whole and any(not a.shape or len(a) != len(places) for a in parts[-1].values()):
                    return None
            joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if len(parts) > 1 else None
            made.append(replace(pool, arrays=dict(parts[0]) if joined is None else joined))
        return Examples(made)


def examples_of(runs: Sequence[Feeds], model: Model, batch: int) -> Examples:
    """Put runs together, and cut them into batches for a model.

    Args:
        runs: calibration inputs (with labels, if any).
        model: what they are for; a batch that it fixes is kept.
        batch: samples of a batch where the model leaves that open.

    Raises:
        UsageError: the data changes its shape too often.
    """
    batched, size = is_batched(model, runs), fixed_batch(model) or batch
    alike: dict[object, list[Feeds]] = {}
    for number, run in enumerate(runs):
        shapes = tuple((name, a.shape[1:] if batched else a.shape) for name, a in run.items())
        alike.setdefault(shapes if batched else (number, shapes), []).append(run)
    kinds = {key if batched else key[1] for key in alike}  # type: ignore[index]
    if len(kinds) > MOST_SHAPES:
        raise UsageError(
            f"the data has {len(kinds)} different shapes, and a training graph is built for each",
            hint=f"pad the inputs to at most {MOST_SHAPES} shapes, or cut them",
        )
    pools = []
    for group in alike.values():
        if not batched:
            pools.append(_Pool(group[0], 1, 1, is_whole=True))
            continue
        arrays = {name: np.concatenate([run[name] for run in group]) for name in group[0]}
        count = len(next(iter(arrays.values())))
        pools.append(_Pool(arrays, count, min(size, count), is_whole=False))
    return Examples(pools)
