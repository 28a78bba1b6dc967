"""Batches: samples joined, and split again, into runs of one size."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.calibration.input_spec import InputSpec, batch_dims, checked_feed, is_batch
from onnxprune.errors import UsageError

Run = dict[str, np.ndarray]
BATCH = 32


def runs_of(
    found: Iterable[tuple[str, Any]],
    wanted: Mapping[str, InputSpec],
    samples: int,
    batch: int,
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
        merge: put samples of several feeds together, where the batch is open.

    Raises:
        UsageError: a feed does not fit the model, or there are too few samples for one run.
    """
    dims = batch_dims(wanted)
    fixed = next((d if isinstance(d, int) else sizes[d] for d in dims if isinstance(d, int) or d in sizes), None)
    # What has the same key goes into the same runs.
    alike: dict[Any, deque[Run]] = {}
    alone: list[Run] = []
    taken = 0
    for where, feed in found:
        batched = is_batch(feed, dims, wanted)
        run = checked_feed(feed, wanted, where, batched=batched)
        total = len(next(iter(run.values()))) if batched else 1
        count = min(total, samples - taken)
        if count < total:  # drawn from all of them, since many files are sorted by class
            drawn = np.random.default_rng(0).permutation(total)[:count]
            run = {name: value[drawn] for name, value in run.items()}
        if batched:
            key = tuple(value.shape[1:] for value in run.values()) if merge or fixed else len(alike)
            alike.setdefault(key, deque()).append(run)
        else:
            alone.append(run)
        taken += count
        if taken >= samples:
            break
    if alone:  # then equal lengths in the other feeds were a coincidence
        runs = [*(run for pieces in alike.values() for run in pieces), *alone]
    else:
        # Two runs at least, so that a fit on one can be judged on the other.
        most = batch if len(alike) > 1 else max(1, min(batch, -(-taken // 2)))
        runs = [r for pieces in alike.values() for r in _recut(pieces, fixed or most, whole=fixed is not None)]
    if not runs:
        few = f"{taken} found, and the model runs on {fixed} at a time" if taken else "it is empty"
        raise UsageError(
            f"there is no calibration sample: {few}",
            hint="give more data, or raise --samples" if taken else "give unlabelled inputs of the model",
        )
    return runs


def _recut(pieces: deque[Run], size: int, *, whole: bool) -> Iterator[Run]:
    """Runs of `size` samples; the last is shorter, or left out if only whole ones are of use. Uses the pieces up."""
    held: list[Run] = []
    room = size
    while pieces:
        piece = pieces.popleft()
        left = len(next(iter(piece.values())))
        while left:
            count = min(left, room)
            held.append({name: value[len(value) - left :][:count] for name, value in piece.items()})
            left, room = left - count, room - count
            if not room:
                yield _joined(held)
                held, room = [], size
    if held and not whole:
        yield _joined(held)


def _joined(parts: list[Run]) -> Run:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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
