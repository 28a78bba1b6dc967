"""Preprocessing of images: the numbers, where they come from, and whether they make sense."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.system import read_file

FILE = "preprocess.toml"
_CHOICES = {
    "fit": ("crop", "stretch"),
    "layout": ("NCHW", "NHWC"),
    "order": ("RGB", "BGR"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
}


def _require(holds: bool, key: str, what: str) -> None:
    if not holds:
        raise UsageError(f"preprocess: {key!r} must be {what}")


def _is_number(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_list(value: Any, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, list | tuple) and all(_is_number(v, kind) for v in value)


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image: resize, crop, then `(pixel * scale - mean) / std` per channel.

    The defaults are those that most ImageNet classifiers were trained with. An image that already has the wanted size
    is neither resized nor cropped.

    Attributes:
        size: (height, width), or one number for both; None: the model's, or 224 where it leaves them open.
        fit: "crop" keeps the aspect ratio and cuts the centre out, "stretch" does not.
        resize: for "crop": length of the shorter side before the cut; None: the cut is 7/8 of it (256 for 224).
        interpolation: how pixels between pixels are made up.
        layout: "NCHW" or "NHWC"; None: where the model's input shape has its channels.
        order: of the channels, which is that of `mean` and `std` too.
        scale: what pixels (0 to 255) are multiplied by.
        mean: is then subtracted; one number, or one per channel.
        std: is what the rest is divided by.
    """

    size: Any = None
    fit: str = "crop"
    resize: int | None = None
    interpolation: str = "bilinear"
    layout: str | None = None
    order: str = "RGB"
    scale: float = 1 / 255
    mean: Any = (0.485, 0.456, 0.406)
    std: Any = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            _require(
                getattr(self, key) in (known if key != "layout" else (*known, None)), key, f"one of {', '.join(known)}"
            )
        size = [self.size] * 2 if isinstance(self.size, int) else self.size
        _require(
            size is None or (_is_list(size, int) and len(size) == 2 and min(size) > 0),
            "size",
            "a positive number, or [height, width]",
        )
        object.__setattr__(self, "size", size and tuple(size))
        _require(
            self.resize is None or (_is_number(self.resize, int) and self.resize > 0), "resize", "a positive number"
        )
        _require(_is_number(self.scale), "scale", "a number")
        for key in ("mean", "std"):
            value = getattr(self, key)
            value = (value,) if _is_number(value) else value
            _require(_is_list(value) and len(value) in (1, 3, 4), key, "a number, or one per channel")
            object.__setattr__(self, key, tuple(value))
        _require(all(self.std), "std", "other than zero")


# Named after what was trained so: torchvision and timm, Keras' MobileNets and Inceptions, Caffe and Keras' VGG and
# ResNets; pixels from 0 to 1; pixels as they are.
PRESETS = {
    "imagenet": Preprocess(),
    "tf": Preprocess(scale=1 / 127.5, mean=1, std=1),
    "caffe": Preprocess(scale=1, mean=(103.939, 116.779, 123.68), std=1, order="BGR"),
    "unit": Preprocess(mean=0, std=1),
    "raw": Preprocess(scale=1, mean=0, std=1),
}


def preprocess_of(given: Any, folder: Path, preset: str) -> Preprocess:
    """What to do to the images of a folder.

    Args:
        given: a Preprocess, a mapping, the name of a preset, the path of a TOML file; None: the folder says, or the
            preset is taken.
        folder: may hold a preprocess.toml.
        preset: what fits the model best if nobody says anything, and what a file or mapping starts from.

    Raises:
        UsageError: there is no such file or preset, or it says something unknown or impossible.
    """
    if given is None:
        given = folder / FILE if (folder / FILE).is_file() else preset
    if isinstance(given, Preprocess):
        return given
    if isinstance(given, Mapping):
        return _from_table(given, preset, "preprocess")
    if str(given) in PRESETS:
        return PRESETS[str(given)]
    try:
        return _from_table(tomllib.loads(read_file(Path(given)).decode()), preset, str(given))
    except OSError as error:
        raise UsageError(
            f"cannot read {given}: {error.strerror}",
            hint=f"--preprocess takes a TOML file or one of {', '.join(PRESETS)}",
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{given} is not TOML: {error}") from error


def _from_table(table: Mapping[str, Any], preset: str, where: str) -> Preprocess:
    known = [f.name for f in fields(Preprocess)]
    values = dict(table)
    base = values.pop("preset", preset)
    if not isinstance(base, str) or base not in PRESETS:
        raise UsageError(f"no preset is called {base!r} @ {where}", hint=f"known: {', '.join(PRESETS)}")
    for key in values:
        if key not in known:
            raise UsageError(f"unknown key {key!r} @ {where}", hint=f"known: preset, {', '.join(known)}")
    try:
        return replace(PRESETS[base], **values)
    except UsageError as error:
        raise UsageError(f"{error.message} @ {where}") from error
