"""Preprocessing: presets, files, arithmetic, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.calibration.preprocess import PRESETS, Preprocess
from onnxprune.errors import UsageError
from tests.calibration.test_images import MEAN, STD, model, one, plain


def test_default_is_what_imagenet_models_want(tmp_path: Path):
    plain(tmp_path / "a.png")
    value = one(tmp_path, model("n", 3, "h", "w"))
    assert value.shape == (1, 3, 224, 224) and value.dtype == np.float32
    expected = (np.array([10, 100, 200]) / 255 - MEAN) / STD
    assert np.allclose(value, expected.reshape(1, 3, 1, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        ("unit", np.array([10, 100, 200]) / 255),
        ("raw", np.array([10, 100, 200])),
        ("tf", np.array([10, 100, 200]) / 127.5 - 1),
        ("caffe", np.array([200, 100, 10]) - [103.939, 116.779, 123.68]),
        ({"preset": "raw", "order": "BGR"}, np.array([200, 100, 10])),
        ({"mean": 0.5, "std": [1, 2, 4]}, (np.array([10, 100, 200]) / 255 - 0.5) / [1, 2, 4]),
        (Preprocess(scale=2, mean=(1, 2, 3), std=1), np.array([20, 200, 400]) - [1, 2, 3]),
    ],
)
def test_arithmetic(tmp_path: Path, preprocess, expected: np.ndarray):
    plain(tmp_path / "a.png")
    assert np.allclose(one(tmp_path, model("n", 3, 8, 8), preprocess)[0, :, 3, 3], expected, rtol=1e-6, atol=1e-6)


def test_toml_in_the_folder_or_given(tmp_path: Path):
    plain(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "preprocess.toml").write_text("preset = 'raw'\nmean = [10, 0, 0]\n")
    (tmp_path / "other.toml").write_text("preset = 'raw'\n[size]\n")
    net = model("n", 3, 8, 8)
    assert np.allclose(one(tmp_path / "photos", net)[0, :, 0, 0], [0, 100, 200])
    assert np.allclose(one(tmp_path / "photos", net, "unit")[0, 0], 10 / 255)
    with pytest.raises(UsageError, match="'size' must be a positive number"):
        one(tmp_path / "photos", net, tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ("imagnet", "cannot read imagnet"),
        ({"preset": "imagnet"}, "no preset is called 'imagnet'"),
        ({"sise": 3}, "unknown key 'sise' @ preprocess"),
        ({"mean": "dark"}, "'mean' must be a number, or one per channel @ preprocess"),
        ({"mean": [1, 2]}, "'mean' must be a number, or one per channel"),
        ({"mean": [1, 2, 3, 4]}, "'mean' has 4 numbers, the model's images 3 channels"),
        ({"std": [0, 1, 1]}, "'std' must be other than zero"),
        ({"size": [1, 2, 3]}, "'size' must be a positive number, or"),
        ({"size": 9}, r"size \[9, 9\] is not that of the model's input 'x'"),
        ({"layout": "CHW"}, "'layout' must be one of NCHW, NHWC"),
        ({"layout": "NHWC"}, "the model's input 'x'.* has no axis for the channels of an image"),
        ({"fit": ["crop"]}, "'fit' must be one of crop, stretch"),
        ({"scale": True}, "'scale' must be a number"),
        ({"resize": 0}, "'resize' must be a positive number"),
    ],
)
def test_preprocessing_that_makes_no_sense(tmp_path: Path, preprocess, message: str):
    plain(tmp_path / "a.png")
    with pytest.raises(UsageError, match=message):
        one(tmp_path, model("n", 3, 8, 8), preprocess)


def test_presets_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    for name, preset in PRESETS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert preset.order in row
        assert all(f"{number:g}" in row for number in (*preset.mean, *preset.std))
