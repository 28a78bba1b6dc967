"""Folders of images as calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune import calibration
from onnxprune.errors import UsageError
from onnxprune.model import load

Image = pytest.importorskip("PIL.Image")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def model(*dims: int | str, elem_type: int = TensorProto.FLOAT):
    values = [helper.make_tensor_value_info(name, elem_type, dims) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def plain(path: Path, colour: tuple[int, ...] = (10, 100, 200), width: int = 40, height: int = 30) -> None:
    put(path, np.broadcast_to(np.array(colour), (height, width, len(colour))))


def one(folder: Path, net, preprocess=None, **options) -> np.ndarray:
    (run,) = calibration.read(calibration.Source(folder, preprocess=preprocess), net, **options)
    return run["x"]


def test_layout_and_size_are_those_of_the_model(tmp_path: Path):
    plain(tmp_path / "a.png")
    first = one(tmp_path, model(1, 3, 20, 24))
    last = one(tmp_path, model(1, 20, 24, 3))
    assert first.shape == (1, 3, 20, 24) and np.array_equal(first.transpose(0, 2, 3, 1), last)
    assert one(tmp_path, model("n", 3, "h", "w"), sizes={"h": 16, "w": 8}).shape == (1, 3, 16, 8)
    assert one(tmp_path, model("n", "c", "h", "w"), {"layout": "NHWC", "size": 8}).shape == (1, 8, 8, 3)


def test_an_image_of_the_right_size_is_left_as_it_is(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3))
    put(tmp_path / "a.png", pixels)
    assert np.array_equal(one(tmp_path, model("n", 6, 5, 3), "raw")[0], pixels)
    assert np.allclose(one(tmp_path, model("n", 6, 5, 3))[0], (pixels / 255 - MEAN) / STD, atol=1e-6)


def test_crop_is_the_centre_after_the_shorter_side_was_resized(tmp_path: Path):
    """Columns count up, so that what is left says where it was; 64 x 32 -> 16 x 8 -> the middle 4 x 4."""
    put(tmp_path / "a.png", np.broadcast_to(np.arange(64)[None, :, None], (32, 64, 3)))
    raw = {"preset": "raw", "resize": 8, "interpolation": "nearest"}
    cut = one(tmp_path, model("n", 3, 4, 4), raw)[0, 0]
    assert np.array_equal(cut, np.broadcast_to(np.arange(64).reshape(16, 4)[6:10, 2], (4, 4)))
    stretched = one(tmp_path, model("n", 3, 4, 4), raw | {"fit": "stretch"})[0, 0]
    assert np.array_equal(stretched[0], np.arange(64).reshape(4, 16)[:, 8])
    # 7/8 of the shorter side by default: 28 of 32 rows, resized to 7; a crop larger than the resized image grows it.
    default = one(tmp_path, model("n", 3, 7, 7), {"preset": "raw", "interpolation": "nearest"})[0, 0, 0]
    assert np.array_equal(np.diff(default), [4] * 6) and default.mean() == pytest.approx(32, abs=2)
    assert one(tmp_path, model("n", 3, 20, 50), {"resize": 8}).shape == (1, 3, 20, 50)


def test_grey_and_transparent_images_and_integer_inputs(tmp_path: Path):
    plain(tmp_path / "a.png", (30, 30, 30, 255))
    assert np.allclose(one(tmp_path, model("n", 1, 8, 8)), 30 / 255)
    assert np.allclose(one(tmp_path, model("n", 3, 8, 8), "raw"), 30)
    value = one(tmp_path, model("n", 8, 8, 3, elem_type=TensorProto.UINT8))
    assert value.dtype == np.uint8 and (value == 30).all()
    with pytest.raises(UsageError, match=r"a\.png: input 'x' holds -2 to -1, too much for uint8"):
        one(tmp_path, model("n", 8, 8, 3, elem_type=TensorProto.UINT8), "imagenet")


def test_samples_are_spread_over_the_subfolders(tmp_path: Path):
    for kind in range(4):
        for i in range(3):
            plain(tmp_path / f"class_{kind}" / f"{i}.png", (kind, 0, 0))
    (tmp_path / "class_0" / "._0.png").write_bytes(b"left by another system")
    (tmp_path / "labels.json").write_text("{}")
    runs = calibration.read(calibration.Source(tmp_path, preprocess="raw"), model("n", 3, 8, 8), samples=4)
    assert sorted(np.concatenate([run["x"] for run in runs])[:, 0, 0, 0]) == [0, 1, 2, 3]
    runs = calibration.read(tmp_path, model(5, 3, 8, 8))
    assert [len(run["x"]) for run in runs] == [5, 5]


def test_models_that_take_no_images(tmp_path: Path):
    plain(tmp_path / "a.png")
    for dims in (("n", 3), ("n", 5, 8, 8), ("n", "c", "h", "w"), ("n", 3, "d", "h", "w")):
        with pytest.raises(UsageError, match=r"images do not fit|has no axis for the channels of an image"):
            one(tmp_path, model(*dims))
    with pytest.raises(UsageError, match="order 'BGR' for images of one channel"):
        one(tmp_path, model("n", 1, 8, 8), {"order": "BGR"})


def test_files_that_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    net = model("n", 3, 8, 8)
    plain(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for broken in (b"", b"no image", whole[:60], whole[:40] + b"\xff" * 20 + whole[60:]):
        (tmp_path / "a.png").write_bytes(broken)
        with pytest.raises(UsageError, match=r"a\.png cannot be read"):
            one(tmp_path, net)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png cannot be read: its pixels have more than 8 bits"):
        one(tmp_path, net)
    plain(tmp_path / "a.png")
    for limit in (1000, 100):  # Pillow warns above its limit, and refuses above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UsageError, match=r"a\.png: .* decompression bomb"):
            one(tmp_path, net)


def noise(path: Path, seed: int) -> None:
    put(path, np.random.default_rng(seed).integers(0, 256, (8, 8, 3)))


def test_the_guess_of_a_preset_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for i in range(4):
        noise(tmp_path / f"{i}.png", i)
    one(tmp_path, model(4, 3, 8, 8))
    assert "prepared as 'imagenet', which is a guess" in caplog.text
    caplog.clear()
    one(tmp_path, model(4, 3, 8, 8), "unit")
    (tmp_path / "preprocess.toml").write_text('preset = "tf"')
    one(tmp_path, model(4, 3, 8, 8))
    assert caplog.text == ""


def test_images_that_look_alike_and_those_of_one_class_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for i in range(4):
        plain(tmp_path / "same" / "a" / f"{i}.png", (10 + i, 100, 200))
        noise(tmp_path / "other" / ("cats" if i % 2 else "dogs") / f"{i}.png", i)
    one(tmp_path / "same", model(4, 3, 8, 8), "unit")
    assert "the images look alike" in caplog.text and "all images lie in one folder, 'a'" in caplog.text
    caplog.clear()
    one(tmp_path / "other", model(4, 3, 8, 8), "unit")
    assert caplog.text == ""


def test_every_class_has_a_sample_where_there_is_room(tmp_path: Path):
    sizes = {"a": 40, "b": 1, "c": 39, "d": 2}
    for name, count in sizes.items():
        for i in range(count):
            plain(tmp_path / name / f"{i:02}.png", (50 * "abcd".index(name), i, 0), 4, 4)
    for samples in (4, 8, 40, 82):
        found = one(tmp_path, model("n", 3, 4, 4), "raw", samples=samples, batch=100, sizes={"n": samples})
        classes = found[:, 0, 0, 0] / 50
        assert set(classes) == {0, 1, 2, 3} and len({tuple(p) for p in found[:, :2, 0, 0]}) == samples
    assert len(one(tmp_path, model("n", 3, 4, 4), "raw", samples=2, sizes={"n": 2})) == 2
