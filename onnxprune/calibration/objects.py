"""Samples from Python objects: feeds, arrays and tensors, what data loaders and readers give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxprune.calibration.arrays import tell_ignored
from onnxprune.calibration.source import Request, Samples
from onnxprune.errors import UsageError
from onnxprune.typing import Array

NAME = "the calibration data"


def from_object(given: Any, request: Request, name: str = NAME) -> Samples:
    """Feeds from an object: one element, or an iterable of elements, or a reader of them.

    An element is a mapping from input names to arrays; or an array, for a model with one input; or a tuple or list of
    arrays in the order of the inputs, as data loaders make it, and of labels after them. Where all arrays have one axis
    fewer than their inputs, the element is one sample. Tensors of any library are arrays if numpy can read them.

    Args:
        given: the object; a reader has `get_next()`, which ends with None.
        request: what the feeds are for.
        name: what messages call the data.

    Raises:
        UsageError: the object, or an element, is nothing of that kind.
    """
    for number, element in enumerate(_elements(given)):
        where = f"feed {number} of {name}"
        feed = _named(element, request)
        if isinstance(feed, Mapping):
            wanted = {key: value for key, value in feed.items() if key in request.wanted}
            if number == 0 and wanted:
                tell_ignored(name, [str(key) for key in feed if key not in wanted])
            feed = {**feed, **_arrays(wanted, request, where)}
        yield where, feed


def _elements(given: Any) -> Iterator[Any]:
    if hasattr(given, "get_next"):
        while (feed := given.get_next()) is not None:
            yield feed
    elif isinstance(given, Mapping) or _is_array(given):
        yield given
    elif isinstance(given, Iterable) and not isinstance(given, bytes):
        yield from given
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):  # a dataset that is read by number
        yield from (given[number] for number in range(len(given)))
    else:
        raise UsageError(
            f"calibration data: a {type(given).__name__} is no source of feeds",
            hint="give a path, a feed (input name -> array), an array, an iterable of them (a list, a DataLoader), a "
            "function that yields them, or a CalibrationDataReader",
        )


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def _named(element: Any, request: Request) -> Any:
    """An element by names of inputs; as it is, if it is nothing that has arrays."""
    if isinstance(element, tuple | list) and element and _is_array(element[0]):
        names = [*request.wanted, *(f"element {i}" for i in range(len(request.wanted), len(element)))]
        return dict(zip(names, element, strict=False))
    return {request.only("an array").name: element} if _is_array(element) else element


def _arrays(feed: Mapping[Any, Any], request: Request, where: str) -> dict[str, Array]:
    """What the model wants, as arrays; a sample becomes a batch of one."""
    found = {name: _array(value, f"{where}: {name!r}") for name, value in feed.items()}
    if all(value.ndim == len(request.wanted[name].dims) - 1 for name, value in found.items()):
        return {name: value[None] for name, value in found.items()}
    return found


def _array(value: Any, where: str) -> Array:
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # torch: numpy reads neither gradients nor other devices
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{where}: a {type(value).__name__} cannot be read as an array: {error}", hint="convert it to numpy first"
        ) from error
