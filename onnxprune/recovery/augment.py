"""Transforms of pictures that leave what they show: more samples out of few. All are label-free but mixup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.typing import Array

# An array of pictures [batch, height, width, channels] and a generator -> pictures of the same shape.
Augmentation = Callable[[Array, np.random.Generator], Array]

# Largest shift, as a share of the picture; 4 of 32 pixels, as for CIFAR-10 since He et al. 2016.
SHIFT = 1 / 8
# Largest change of contrast, and of brightness in deviations of the batch.
COLOUR = 0.2
# Numbers of channels that a picture may have, and the fewest pixels along an axis.
_CHANNELS, _LEAST = (1, 3, 4), 8


def flip(pictures: Array, rng: np.random.Generator) -> Array:
    """Mirror half of the pictures, left to right."""
    turned = rng.random(len(pictures)) < 0.5
    return np.where(turned[:, None, None, None], pictures[:, :, ::-1], pictures)


def shift(pictures: Array, rng: np.random.Generator) -> Array:
    """Move every picture by up to an eighth of its size; the border is mirrored."""
    height, width = pictures.shape[1:3]
    most = [max(1, round(n * SHIFT)) for n in (height, width)]
    padded = np.pad(pictures, ((0, 0), (most[0], most[0]), (most[1], most[1]), (0, 0)), mode="reflect")
    rows = rng.integers(0, 2 * most[0] + 1, len(pictures))[:, None] + np.arange(height)
    columns = rng.integers(0, 2 * most[1] + 1, len(pictures))[:, None] + np.arange(width)
    moved: Array = padded[np.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def colour(pictures: Array, rng: np.random.Generator) -> Array:
    """Change contrast and brightness of every picture by up to a fifth."""
    shape = (len(pictures), 1, 1, 1)
    values = pictures.astype(np.float32)
    means = values.mean(axis=(1, 2, 3), keepdims=True)
    contrast = 1 + rng.uniform(-COLOUR, COLOUR, shape).astype(np.float32)
    light = rng.uniform(-COLOUR, COLOUR, shape).astype(np.float32) * values.std()
    return _of_type((values - means) * contrast + means + light, pictures)


def mixup(pictures: Array, rng: np.random.Generator) -> Array:
    """Blend every picture with another one of its batch (Zhang et al. 2018); a teacher must say what it is."""
    share = rng.random((len(pictures), 1, 1, 1)).astype(np.float32)
    return _of_type(share * pictures + (1 - share) * pictures[rng.permutation(len(pictures))], pictures)


def _of_type(values: Array, like: Array) -> Array:
    """The values in the type of another array; whole numbers are rounded, and stay within the type's limits."""
    if like.dtype.kind in "iu":
        limits = np.iinfo(like.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(like.dtype)


AUGMENTATIONS: Mapping[str, Augmentation] = {f.__name__: f for f in (flip, shift, colour, mixup)}


def augmented(feeds: Mapping[str, Array], names: Sequence[str], rng: np.random.Generator) -> dict[str, Array]:
    """Transform every input that holds pictures by the transforms of these names, in their order.

    Raises:
        UsageError: no input looks like pictures.
    """
    found = dict(feeds)
    pictures = [name for name, array in feeds.items() if _channels(array) is not None]
    if names and not pictures:
        shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in feeds.items())
        raise UsageError(
            f"no input looks like pictures: {shapes}",
            hint="--augment is for inputs of four axes with 1, 3 or 4 channels; leave it out",
        )
    for name in pictures:
        axis = _channels(feeds[name])
        assert axis is not None
        array = np.moveaxis(feeds[name], axis, -1)
        for transform in names:
            array = AUGMENTATIONS[transform](array, rng)
        found[name] = np.ascontiguousarray(np.moveaxis(array, -1, axis))
    return found


def _channels(array: Array) -> int | None:
    """The axis of the channels of pictures; None if it holds none."""
    if array.ndim != 4:
        return None
    for axis in (1, 3):
        sizes = [n for a, n in enumerate(array.shape) if a not in (0, axis)]
        if array.shape[axis] in _CHANNELS and min(sizes) >= _LEAST:
            return axis
    return None
