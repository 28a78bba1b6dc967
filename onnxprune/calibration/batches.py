"""Batches: samples joined, and split again, into runs of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.calibration.input_spec import InputSpec, batch_dims, checked_feed, is_batch, tell_pixels
from onnxprune.calibration.stored_rows import Allowance, StoredRows
from onnxprune.errors import UsageError

Run = dict[str, np.ndarray]
BATCH = 32
# Runs, at least, if there are as many samples: most of them fit, one judges the fits, and one the result.
LEAST_RUNS = 8


def runs_of(
    found: Iterable[tuple[str, Any]],
    wanted: Mapping[str, InputSpec],
    samples: int,
    batch: int | None,
    sizes: Mapping[str, int],
    *,
    merge: bool,
) -> list[Run]:
    """The samples in runs that the model takes.

    Axis 0 is the batch if all inputs share it, or are as long along it where its size is open; else every feed is a
    run as it is.

    Args:
        found: feeds of one or more samples, each with what messages call it.
        wanted: the model's inputs.
        samples: take at most so many.
        batch: most samples in a run, where the model leaves the batch open.
        sizes: numbers for symbolic dims; one for the batch fixes it.
        merge: put samples of several feeds together; those of one shape are, where every feed is one sample.

    Raises:
        UsageError: a feed does not fit the model, or there are too few samples for one run.
    """
    dims = batch_dims(wanted)
    fixed = next((d if isinstance(d, int) else sizes[d] for d in dims if isinstance(d, int) or d in sizes), None)
    allowance, merge = Allowance(), merge or fixed is not None
    alike: dict[Any, _Samples] = {}  # those of the same shape are stored together
    feeds: list[_Samples] = []
    alone: list[Run] = []
    taken = 0
    for where, feed in found:
        tell_pixels(feed, {} if taken else wanted, where)
        batched = is_batch(feed, dims, wanted)
        run = checked_feed(feed, wanted, where, most=samples - taken if batched else None, allowance=allowance)
        if batched:
            stored = alike.setdefault(tuple(value.shape[1:] for value in run.values()), _Samples.none(run, allowance))
            feeds.append(stored.added(run))
            taken += feeds[-1].count
        else:
            alone.append(run)
            taken += 1
        if taken >= samples:
            break
    if alone:  # then equal lengths in the other feeds were a coincidence
        runs = [*(run for one in feeds for run in one.cut(one.count)), *alone]
    else:
        merge = merge or (len(alike) == 1 and all(one.count == 1 for one in feeds))
        parts = list(alike.values()) if merge else feeds
        most, least = (BATCH, LEAST_RUNS) if batch is None else (batch, 2)
        most = most if len(parts) > 1 else max(1, min(most, -(-taken // least)))
        runs = [run for one in parts for run in one.cut(fixed or most, whole=fixed is not None)]
    if not runs:
        few = f"{taken} found, and the model runs on {fixed} at a time" if taken else "it is empty"
        raise UsageError(
            f"there is no calibration sample: {few}",
            hint="give more data, or raise --samples" if taken else "give unlabelled inputs of the model",
        )
    return runs


@dataclass
class _Samples:
    """Samples of one shape: all that are stored together, or those of one feed.

    Attributes:
        stored: input -> its rows, which others may be among.
        start: the first of them that counts.
        count: how many do.
    """

    stored: Mapping[str, StoredRows]
    start: int = 0
    count: int = 0

    @classmethod
    def none(cls, run: Run, allowance: Allowance) -> _Samples:
        """Room for samples like these."""
        return cls({name: StoredRows(allowance) for name in run})

    def added(self, run: Run) -> _Samples:
        """Add samples; what was added."""
        for name, value in run.items():
            self.stored[name].append(value)
        count = len(next(iter(run.values())))
        self.count += count
        return _Samples(self.stored, self.count - count, count)

    def cut(self, size: int, *, whole: bool = False) -> Iterator[Run]:
        """Runs of `size` samples; the last is shorter, or left out if only whole ones are of use."""
        arrays = {name: rows.array() for name, rows in self.stored.items()}
        end = self.start + self.count
        for start in range(self.start, end, size):
            if not whole or start + size <= end:
                yield {name: array[start : min(start + size, end)] for name, array in arrays.items()}


def digest(runs: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Hash calibration runs.

    Args:
        runs: input name -> array, run by run.

    Returns:
        SHA-256 of names, types, shapes and contents in their order, as hexadecimal digits.
    """
    content = hashlib.sha256()
    for run in runs:
        for name in sorted(run):
            content.update(f"{name} {run[name].dtype} {run[name].shape};".encode())
            content.update(run[name].tobytes() if run[name].dtype != object else repr(run[name].tolist()).encode())
    return content.hexdigest()
