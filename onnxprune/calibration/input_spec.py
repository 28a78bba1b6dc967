"""Types and shapes that the inputs of a model must have, and the check of a feed against them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.calibration.stored_rows import Allowance, computed, pieces
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.model.shapes.symbols import dims_of
from onnxprune.model.tensors import dtype_of

# Kind of the model's type -> kinds of data that hold it without loss of meaning (V: bfloat16 and its like).
_ACCEPTED = {"f": "fiub", "V": "fiub", "i": "iub", "u": "iub", "b": "iub", "O": "UO"}


logger = logging.getLogger(__name__)

# Samples that are looked at for what pixels look like; the largest value is above the first and at most the second.
LOOKED_AT, PIXELS = 64, (16, 255)


@dataclass(frozen=True)
class InputSpec:
    """One input of a model, or labels beside its inputs.

    Attributes:
        name: of the graph input.
        dtype: its numpy type.
        dims: a number or a symbol for every axis.
        what: what messages call it, "input" or "label".
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int | str, ...]
    what: str = "input"

    def fits(self, shape: tuple[int, ...], *, free_batch: bool) -> bool:
        """Whether an array of that shape may be fed, with any size of axis 0 if that is cut afterwards."""
        pairs = list(zip(self.dims, shape, strict=False))[1 if free_batch else 0 :]
        return len(shape) == len(self.dims) and all(isinstance(d, str) or d == n for d, n in pairs)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype.name} [{', '.join(map(str, self.dims))}])"


def wanted_by(model: Model) -> dict[str, InputSpec]:
    """Name the inputs to feed: those of the graph that have no initializer.

    Returns:
        Input -> its type and shape.

    Raises:
        UsageError: an input is no tensor.
    """
    found = {}
    for value in model.proto.graph.input:
        if value.name in model.initializers:
            continue
        if not value.type.HasField("tensor_type"):
            raise UsageError(f"calibration data: input {value.name!r} of {model.name} is no tensor")
        found[value.name] = InputSpec(value.name, dtype_of(value.type.tensor_type.elem_type), tuple(dims_of(value)))
    return found


def batch_dims(wanted: Mapping[str, InputSpec]) -> tuple[int | str, ...]:
    """Axis 0 of all inputs: a number or a symbol that they share, or symbols for what may be the same; empty if not.

    Some exporters give every axis a name of its own, the batch too.
    """
    firsts = dict.fromkeys(w.dims[0] if w.dims else 0 for w in wanted.values())
    symbols = all(isinstance(first, str) for first in firsts)
    return tuple(firsts) if symbols or (len(firsts) == 1 and all(w.dims for w in wanted.values())) else ()


def is_batch(feed: Any, dims: tuple[int | str, ...], wanted: Mapping[str, InputSpec]) -> bool:
    """Whether axis 0 counts the samples of a feed: inputs share it, or have as many entries along it."""
    if len(dims) < 2 or not isinstance(feed, Mapping):
        return len(dims) == 1
    shapes = [np.shape(feed[name]) for name in wanted if name in feed]
    return all(shapes) and len({shape[0] for shape in shapes}) == 1


def checked_feed(
    feed: Any, wanted: Mapping[str, InputSpec], where: str, *, most: int | None, allowance: Allowance
) -> dict[str, np.ndarray]:
    """The feed in the model's types, without what the model does not have.

    Args:
        feed: name -> array.
        wanted: the model's inputs.
        where: what messages call the feed.
        most: samples that are taken, where axis 0 counts them and may have any size, the same for all; drawn from all
            of them, since many files are sorted by class. None where the feed is one run.
        allowance: what the result may hold in memory.

    Raises:
        UsageError: a name, type or shape does not fit.
    """
    if not isinstance(feed, Mapping):
        raise UsageError(
            f"{where} is a {type(feed).__name__}, not a mapping of input names to arrays",
            hint=f"the model's inputs are {_listed(wanted)}",
        )
    missing = [name for name in wanted if name not in feed]
    if missing:
        raise UsageError(
            f"{where}: {wanted[missing[0]].what} {missing[0]!r} is missing", hint=_naming(missing[0], feed, wanted)
        )
    arrays = {name: np.asarray(feed[name]) for name in wanted}
    for name, want in wanted.items():
        _check_array(arrays[name], want, where, batched=most is not None)
    counts = {name: len(value) for name, value in arrays.items()} if most is not None else {}
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"{where}: inputs differ in their number of samples: "
            + ", ".join(f"{name} has {count}" for name, count in counts.items()),
            hint="axis 0 counts the samples, and all inputs of this model share it",
        )
    total, drawn = next(iter(counts.values()), 0), None
    if most is not None and most < total:
        drawn = np.random.default_rng(0).permutation(total)[:most]
    return {name: _converted(arrays[name], want, where, drawn, allowance) for name, want in wanted.items()}


def tell_pixels(feed: Any, wanted: Mapping[str, InputSpec], where: str) -> None:
    """Say that numbers look like pixels that nobody has scaled: integers of one byte for an input of floats.

    Args:
        feed: name -> array; anything else is passed over.
        wanted: the model's inputs.
        where: what messages call the feed.
    """
    for name, want in wanted.items() if isinstance(feed, Mapping) else ():
        value = np.asarray(feed.get(name, 0.0))
        if want.dtype.kind != "f" or value.dtype.kind not in "iu" or value.ndim < 3 or want.what != "input":
            continue
        few = value[:LOOKED_AT]
        if few.size and few.min() >= 0 and PIXELS[0] < few.max() <= PIXELS[1]:
            logger.warning(
                "%s: %s holds integers from 0 to 255 for an input of floats, and is taken as it is: was the model "
                "trained on scaled pixels?",
                where,
                repr(name),
            )


def _listed(wanted: Mapping[str, InputSpec]) -> str:
    return ", ".join(str(spec) for spec in wanted.values() if spec.what == "input")


def _naming(missing: str, feed: Mapping[str, Any], wanted: Mapping[str, InputSpec]) -> str:
    has = ", ".join(map(repr, feed)) or "nothing"
    close = difflib.get_close_matches(missing, [str(n) for n in feed if n not in wanted], 1)
    advice = f"; rename {close[0]!r} to {missing!r}" if close else ""
    return f"the model's inputs are {_listed(wanted)}; the data has {has}{advice}"


def _check_array(value: np.ndarray, want: InputSpec, where: str, *, batched: bool) -> None:
    """Refuse an array of another type or shape."""
    dtype = want.dtype
    if value.dtype != dtype and value.dtype.kind not in _ACCEPTED.get(dtype.kind, ""):
        raise UsageError(
            f"{where}: {want.what} {want.name!r} is {value.dtype}, the model wants {dtype.name}",
            hint=f"convert the data: values.astype({dtype.name!r})",
        )
    if not want.fits(value.shape, free_batch=batched):
        dims = list(want.dims)
        raise UsageError(
            f"{where}: {want.what} {want.name!r} has shape {list(value.shape)}, the model wants {dims}",
            hint="axis 0 counts the samples; every other axis must be as in the model" if batched else "",
        )


def _converted(
    array: np.ndarray, want: InputSpec, where: str, drawn: np.ndarray | None, allowance: Allowance
) -> np.ndarray:
    """The array, or rows of it, in the model's type; it may be larger than memory."""

    def checked(value: np.ndarray) -> np.ndarray:
        if want.dtype.kind in "iu" and value.dtype != want.dtype and value.size:
            low, high, limits = value.min(), value.max(), np.iinfo(want.dtype)
            if int(low) < limits.min or int(high) > limits.max:
                raise UsageError(
                    f"{where}: input {want.name!r} holds {int(low)} to {int(high)}, too much for {want.dtype.name}",
                    hint="the values must fit the model's type",
                )
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise UsageError(f"{where}: input {want.name!r} holds NaN", hint="leave samples with missing values out")
        return value.astype(want.dtype, copy=False)

    if drawn is not None or array.dtype != want.dtype:
        return computed(array, checked, drawn, allowance)
    for piece in pieces(array):
        checked(piece)
    return array
