"""Samples to train on: shuffled by a seed, in batches that the model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.calibration import Allowance, Feeds, StoredRows, fixed_batch, is_batched
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.typing import Array

# A training graph is built for each shape of a batch; data with more shapes than this spends its time on building.
MOST_SHAPES = 16


@dataclass(frozen=True, eq=False)
class _Column:
    """Samples of one input, in parts that are not put together: they may be larger than memory.

    Attributes:
        parts: arrays with samples on axis 0.
    """

    parts: Sequence[Array]

    @cached_property
    def starts(self) -> Array:
        """int64[parts + 1]: the number of the first sample of every part, and how many there are."""
        return np.cumsum([0, *(len(part) for part in self.parts)])

    def taken(self, places: Array) -> Array:
        """The samples at these places."""
        if len(self.parts) == 1:
            return self.parts[0][places]
        found = np.empty((len(places), *self.parts[0].shape[1:]), self.parts[0].dtype)
        owners = np.searchsorted(self.starts, places, side="right") - 1
        for owner in np.unique(owners):
            here = owners == owner
            found[here] = self.parts[owner][places[here] - self.starts[owner]]
        return found


@dataclass(frozen=True, eq=False)
class _Pool:
    """Samples of one shape.

    Attributes:
        columns: input -> samples; or a run that cannot be cut, as the only part.
        count: how many samples there are; 1 for a run that cannot be cut.
        size: samples of a batch.
    """

    columns: Mapping[str, _Column]
    count: int
    size: int
    is_whole: bool

    @classmethod
    def whole(cls, run: Feeds) -> _Pool:
        """A run that cannot be cut."""
        return cls({name: _Column([array]) for name, array in run.items()}, 1, 1, is_whole=True)

    def taken(self, places: Array) -> dict[str, Array]:
        """The samples at these places."""
        columns = self.columns.items()
        return {name: c.parts[0] if self.is_whole else c.taken(places) for name, c in columns}


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
        return cls([_Pool.whole(run) for run in runs])

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(pool.count for pool in self.pools)

    @property
    def is_divisible(self) -> bool:
        """Whether batches can be cut into samples."""
        return not any(pool.is_whole for pool in self.pools)

    @property
    def per_batch(self) -> int:
        """Samples of the largest batch."""
        return max(pool.size for pool in self.pools)

    @property
    def per_epoch(self) -> int:
        """How many batches there are before a sample comes again."""
        return sum(pool.count // pool.size for pool in self.pools)

    def kinds(self) -> Iterator[dict[str, Array]]:
        """The first batch of every shape."""
        for pool in self.pools:
            yield pool.taken(np.arange(pool.size))

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

    def completed(self, function: Callable[[Feeds], Mapping[str, Array]]) -> Examples | None:
        """Replace every sample by what a function makes of its batch; None where it gives no array per sample.

        Inputs that the function hands on are not stored again; what it makes is, in a file where it is large.
        """
        pools, allowance = [], Allowance()
        for pool in self.pools:
            made, handed_on = dict[str, StoredRows](), dict[str, _Column]()
            for start in range(0, pool.count, pool.size):
                places = np.arange(start, min(start + pool.size, pool.count))
                batch = pool.taken(places)
                for name, array in function(batch).items():
                    if array is batch.get(name):
                        handed_on[name] = pool.columns[name]
                    elif pool.is_whole:
                        handed_on[name] = _Column([array])
                    elif not array.shape or len(array) != len(places):
                        return None
                    else:
                        made.setdefault(name, StoredRows(allowance)).append(array)
            stored = {name: _Column([rows.array()]) for name, rows in made.items()}
            pools.append(replace(pool, columns={**handed_on, **stored}))
        return Examples(pools)


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
            pools.append(_Pool.whole(group[0]))
            continue
        columns = {name: _Column([run[name] for run in group]) for name in group[0]}
        count = int(next(iter(columns.values())).starts[-1])
        pools.append(_Pool(columns, count, min(size, count), is_whole=False))
    return Examples(pools)
