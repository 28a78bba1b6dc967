"""Samples from a folder of images."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.preprocess import FILE, Preprocess, preprocess_of
from onnxprune.calibration.source import Request, Samples
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
# Rows of the small versions of images that are compared, about; share of their spread below which they look alike.
SMALL, ALIKE = 16, 0.05
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Size where neither the model nor the user says one, and the share of the shorter side that a crop keeps.
_SIZE, _SHARE = 224, 7 / 8


def files_of(folder: Path) -> list[Path]:
    """All images in a folder and the folders in it, in order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def from_images(folder: Path, request: Request) -> Samples:
    """Images at even steps through the whole folder, so that all of its subfolders have a share.

    Logs what was guessed, and what is wrong with the choice as far as that can be seen.
    """
    want = request.only("a folder of images")
    candidates = _layouts(want)
    colour = next(iter(candidates.values()), 3) == 3
    preset = "raw" if want.dtype.kind in "iu" else "imagenet" if colour else "unit"
    how = preprocess_of(request.source.preprocess, folder, preset)
    if request.source.preprocess is None and not (folder / FILE).is_file():
        logger.warning("%s: images are prepared as %r, which is a guess; --preprocess says how", folder, preset)
    layout, channels = _layout(want, candidates, how.layout)
    height, width = _size(want, layout, how, request)
    _check_channels(how, channels)
    chosen, small = _chosen(files_of(folder), request.samples), []
    _tell_classes(folder, chosen)
    for path in chosen:
        pixels = _pixels(path, how, _MODES[channels], height, width)
        small.append(_small(pixels))
        if len(small) == len(chosen):
            _tell_alike(folder, np.array(small))
        yield str(path), {want.name: _value(pixels, how, layout, want)[None]}


def _chosen(files: Sequence[Path], most: int) -> list[Path]:
    """Files at even steps; in turn from every folder where steps leave a folder out, and there is room for all."""
    count = min(len(files), most)
    even = [files[index * len(files) // count] for index in range(count)]
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    if len({path.parent for path in even}) == len(folders) or count < len(folders):
        return even
    turns = itertools.chain.from_iterable(itertools.zip_longest(*folders.values()))
    return sorted(itertools.islice(filter(None, turns), count))


def _tell_classes(folder: Path, chosen: Sequence[Path]) -> None:
    """Say that all images are of one class: they lie in the only folder of a folder of classes."""
    parents = {path.parent for path in chosen}
    if len(chosen) > 1 and len(parents) == 1 and folder not in parents:
        (only,) = parents
        logger.warning("%s: all images lie in one folder, %r; are they all of one class?", folder, only.name)


def _small(pixels: np.ndarray) -> np.ndarray:
    """Some pixels of an image, float[rows, columns, channels]."""
    rows, columns = (max(1, length // SMALL) for length in pixels.shape[:2])
    return pixels[::rows, ::columns].astype(np.float32)


def _tell_alike(folder: Path, small: np.ndarray) -> None:
    """Say that images look alike: small versions of them differ little, beside what they differ from place to place."""
    if len(small) > 1 and small.std(axis=0).mean() < ALIKE * max(float(small.std()), 1.0):
        logger.warning("%s: the images look alike; results may not hold for others", folder)


def _layouts(want: InputSpec) -> dict[str, int]:
    """Where the channels may be, and how many these are then."""
    dims = want.dims
    if len(dims) != 4:
        raise UsageError(
            f"images do not fit the model's input {want}",
            hint="images are for inputs of rank 4; convert them yourself and give an .npz, or module:function",
        )
    places = (("NCHW", dims[1]), ("NHWC", dims[3]))
    return {layout: dim for layout, dim in places if isinstance(dim, int) and dim in _MODES}


def _layout(want: InputSpec, candidates: dict[str, int], given: str | None) -> tuple[str, int]:
    """The layout, the first that is possible unless it is given, and the channels."""
    layout = given or next(iter(candidates), None)
    if layout is None or (layout not in candidates and isinstance(want.dims[layout.index("C")], int)):
        raise UsageError(
            f"the model's input {want} has no axis for the channels of an image",
            hint="say layout = 'NCHW' or 'NHWC' in --preprocess; there are 1, 3 or 4 channels",
        )
    return layout, candidates.get(layout, 3)


def _size(want: InputSpec, layout: str, how: Preprocess, request: Request) -> tuple[int, int]:
    dims = want.dims[2:4] if layout == "NCHW" else want.dims[1:3]
    found = []
    for which, dim in enumerate(dims):
        asked = how.size[which] if how.size else None
        if isinstance(dim, int) and asked not in (None, dim):
            raise UsageError(
                f"preprocess: size {list(how.size)} is not that of the model's input {want}",
                hint="leave it out: the model says its size",
            )
        found.append(dim if isinstance(dim, int) else asked or request.sizes.get(dim, _SIZE))
    return found[0], found[1]


def _check_channels(how: Preprocess, channels: int) -> None:
    for key in ("mean", "std"):
        if len(getattr(how, key)) not in (1, channels):
            raise UsageError(
                f"preprocess: {key!r} has {len(getattr(how, key))} numbers, the model's images {channels} channels",
                hint="give one number, or one per channel",
            )
    if how.order == "BGR" and channels == 1:
        raise UsageError("preprocess: order 'BGR' for images of one channel", hint="leave 'order' out")


def _pixels(path: Path, how: Preprocess, mode: str, height: int, width: int) -> np.ndarray:
    """[height, width, channels], as Pillow gives them.

    Raises:
        UsageError: the file is no image, damaged, or too large; or Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError("images need Pillow", hint="pip install 'onnxprune[images]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):  # Pillow would cut everything above 255 off
                    raise ValueError(f"its pixels have more than 8 bits (Pillow mode {image.mode})")
                fitted = _fitted(image.convert(mode), how, height, width)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"{path}: {error}", hint="remove it from the folder, or make it smaller") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="remove it from the folder, or convert it") from error
    return np.asarray(fitted).reshape(height, width, -1)


def _fitted(image: Image.Image, how: Preprocess, height: int, width: int) -> Any:
    from PIL import Image

    if image.size == (width, height):
        return image
    filtered = Image.Resampling[how.interpolation.upper()]
    if how.fit == "stretch":
        return image.resize((width, height), filtered)
    cover = max(width / image.width, height / image.height)
    factor = max(cover, how.resize / min(image.size)) if how.resize else cover / _SHARE
    resized = image.resize(
        (max(width, round(image.width * factor)), max(height, round(image.height * factor))), filtered
    )
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return resized.crop((left, top, left + width, top + height))


def _value(pixels: np.ndarray, how: Preprocess, layout: str, want: InputSpec) -> np.ndarray:
    values = pixels.astype(np.float32)
    if how.order == "BGR":
        values = values[..., [2, 1, 0, *range(3, values.shape[-1])]]
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    values = (values * np.float32(how.scale) - mean) / std
    placed = values.transpose(2, 0, 1) if layout == "NCHW" else values
    return np.rint(placed).astype(np.int64) if want.dtype.kind in "iu" else placed
