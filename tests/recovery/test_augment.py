"""Transforms of pictures: what they keep, and which inputs they are for."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.recovery.augment import AUGMENTATIONS, augmented, flip, mixup, shift


def pictures(channels_last: bool, dtype: type = np.float32) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (16, 12, 16, 3)).astype(dtype)
    return values if channels_last else np.ascontiguousarray(values.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_layouts_and_types(name: str, dtype: type) -> None:
    """Both layouts give the same pictures, of the same type and within its limits."""
    last, first = (
        augmented({"x": pictures(kind, dtype)}, [name], np.random.default_rng(3))["x"] for kind in (True, False)
    )
    np.testing.assert_allclose(last.transpose(0, 3, 1, 2), first, rtol=1e-5, atol=1)
    assert last.dtype == dtype and not np.array_equal(last, pictures(True, dtype))


def test_flip_mirrors_some() -> None:
    x = pictures(True)
    found = flip(x, np.random.default_rng(0))
    turned = [np.array_equal(a, b[:, ::-1]) for a, b in zip(found, x, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(found, x, strict=True)]
    assert any(turned) and any(kept) and all(t or k for t, k in zip(turned, kept, strict=True))


def test_shift_moves_by_whole_pixels() -> None:
    x = np.arange(16 * 12 * 16, dtype=np.float32).reshape(16, 12, 16, 1)
    found = shift(x, np.random.default_rng(0))
    moves = set()
    for before, after in zip(x, found, strict=True):
        row, column = (int(v) for v in np.argwhere(before[..., 0] == after[6, 8, 0])[0])
        moves.add((row - 6, column - 8))
        assert abs(row - 6) <= 2 and abs(column - 8) <= 2
    assert len(moves) > 4


def test_mixup_blends_with_another() -> None:
    x = pictures(True)
    found = mixup(x, np.random.default_rng(0))
    assert (found >= x.min()).all() and (found <= x.max()).all()
    assert np.isclose(found.mean(), x.mean(), rtol=0.05)


def test_only_pictures_change() -> None:
    feeds = {"x": pictures(False), "ids": np.arange(16), "mask": np.ones((16, 3, 4, 4), np.float32)}
    found = augmented(feeds, ["flip", "colour"], np.random.default_rng(0))
    assert found["ids"] is feeds["ids"] and found["mask"] is feeds["mask"]
    with pytest.raises(UsageError, match="no input looks like pictures: 'ids'"):
        augmented({"ids": np.arange(16)}, ["flip"], np.random.default_rng(0))
