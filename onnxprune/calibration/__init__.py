"""Calibration data: unlabelled inputs from files or from Python, in batches, checked against the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.calibration.batches import BATCH, Run, digest, runs_of
from onnxprune.calibration.dispatch import check_exists, is_code, is_random, samples_of
from onnxprune.calibration.input_spec import InputSpec, batch_dims, is_batch, wanted_by
from onnxprune.calibration.labels import LabelSource, is_label_source
from onnxprune.calibration.preprocess import Preprocess
from onnxprune.calibration.source import Request, Source
from onnxprune.calibration.stored_rows import Allowance, StoredRows
from onnxprune.model import Model
from onnxprune.typing import Feeds


def read(
    source: Any,
    model: Model,
    *,
    samples: int = 256,
    batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    also: Sequence[InputSpec | LabelSource] = (),
) -> list[Run]:
    """Calibration inputs for `model`.

    Args:
        source: a path (.npz or .npy, a Polygraphy .json, a text file, a folder of arrays, `test_data_set_*`, JSON or
            images), `module:function`, `random`, or in Python feeds, arrays, or tuples of arrays (one, or an iterable
            of them such as a list or a DataLoader), a function that gives them, or an
            `onnxruntime.quantization.CalibrationDataReader`; in a `Source` together with how to read it.
        model: what the inputs are for.
        samples: take at most so many.
        batch: samples in a run, where the model leaves the batch open; if None, at most 32, and fewer for at least
            eight runs.
        sizes: numbers for symbolic dims: the batch, and what the source can choose (images, text, random).
        also: arrays that the source must have beside the inputs, like these: labels; or that lie beside it.

    Returns:
        The feeds of every run, input name -> array. Axis 0 is the batch if all inputs share it. Then runs have exactly
        as many samples as the model or `sizes` fixes, what is left over is dropped; or at most `batch`, and there are
        at least eight, if there are as many samples. Feeds from Python are put together only if the batch is fixed, or
        each is one sample, of one shape.

    Raises:
        UsageError: the source cannot be read, or names, types or shapes do not fit the model.
        RunError: the user's own function failed.
    """
    given = source if isinstance(source, Source) else Source(source)
    wanted = wanted_by(model) | {extra.name: extra for extra in also if isinstance(extra, InputSpec)}
    request = Request(model, wanted, samples, sizes or {}, given)
    found, merge = samples_of(request), not is_code(given.data)
    for extra in also:
        if isinstance(extra, LabelSource):
            found, wanted = extra.added(found), {**wanted, extra.spec.name: extra.spec}
    return runs_of(found, wanted, samples, batch, request.sizes, merge=merge)


def fixed_batch(model: Model) -> int | None:
    """Tell how many samples a model runs on at a time.

    Returns:
        The size of axis 0 of its inputs; None where that is open, or inputs share no such axis.
    """
    dims = batch_dims(wanted_by(model))
    return next((dim for dim in dims if isinstance(dim, int)), None)


def is_batched(model: Model, runs: Sequence[Feeds]) -> bool:
    """Tell whether axis 0 counts samples.

    Args:
        model: the model.
        runs: inputs of it.

    Returns:
        True if it does in all inputs of all runs.
    """
    wanted = wanted_by(model)
    dims = batch_dims(wanted)
    return bool(dims) and all(is_batch(run, dims, wanted) for run in runs)


def count_samples(model: Model, runs: Sequence[Feeds]) -> int:
    """Count samples.

    Args:
        model: the model.
        runs: inputs of it.

    Returns:
        Their number: of entries along the batch, or of runs where there is none.
    """
    name = next(iter(wanted_by(model)), "")
    return sum(len(run[name]) for run in runs) if is_batched(model, runs) else len(runs)


__all__ = [
    "BATCH",
    "Allowance",
    "Feeds",
    "InputSpec",
    "LabelSource",
    "Preprocess",
    "Run",
    "Source",
    "StoredRows",
    "check_exists",
    "digest",
    "fixed_batch",
    "is_batched",
    "is_label_source",
    "is_random",
    "read",
    "count_samples",
    "wanted_by",
]
