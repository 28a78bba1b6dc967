"""Calibration data from every kind of source, and what is said about data that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import calibration
from onnxprune.errors import UsageError
from onnxprune.model import load


def model(batch: int | str = "n", inputs: tuple[str, ...] = ("x",)):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in inputs]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph([helper.make_node("Sum", list(inputs), ["y"])], "g", values, [result])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


DATA = np.arange(60, dtype=np.float32).reshape(20, 3)


def together(runs: list[dict[str, np.ndarray]], name: str = "x") -> np.ndarray:
    return np.concatenate([run[name] for run in runs])


def test_npz_in_batches(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA, label=np.arange(20))
    runs = calibration.read(tmp_path / "c.npz", model(), batch=8)
    assert [len(run["x"]) for run in runs] == [8, 8, 4] and list(runs[0]) == ["x"]
    assert np.array_equal(together(runs), DATA)
    assert np.array_equal(together(calibration.read(str(tmp_path / "c.npz"), model(), samples=9, batch=4)), DATA[:9])


def test_fixed_batch_takes_whole_batches_only(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA)
    assert [len(run["x"]) for run in calibration.read(tmp_path / "c.npz", model(6))] == [6, 6, 6]


def test_two_inputs_stay_together(tmp_path: Path):
    np.savez(tmp_path / "c.npz", a=DATA, b=-DATA)
    runs = calibration.read(tmp_path / "c.npz", model(inputs=("a", "b")), batch=7)
    assert all(np.array_equal(run["a"], -run["b"]) for run in runs)


def test_folder_of_npy(tmp_path: Path):
    for i, row in enumerate(DATA):
        np.save(tmp_path / f"{i:03}.npy", row)
    assert np.array_equal(together(calibration.read(tmp_path, model())), DATA)


def test_folder_of_test_data_sets(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"test_data_set_{i}").mkdir()
        tensor = numpy_helper.from_array(DATA[i : i + 1], "x")
        onnx.save_tensor(tensor, str(tmp_path / f"test_data_set_{i}" / "input_0.pb"))
    assert np.array_equal(together(calibration.read(tmp_path, model())), DATA[:3])


def test_feeds_and_readers():
    feeds = [{"x": DATA[:5]}, {"x": DATA[5:]}]

    class Reader:
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self):
            return next(self.left, None)

    for source in (feeds, iter(feeds), Reader()):
        assert np.array_equal(together(calibration.read(source, model())), DATA)


def test_types_are_converted_without_loss(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA.astype(np.uint8))
    assert calibration.read(tmp_path / "c.npz", model())[0]["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": DATA}, "input 'x' is missing"),
        ({"x": DATA[:, :2]}, r"has shape \[20, 2\], the model wants \['n', 3\]"),
        ({"x": DATA.reshape(-1)}, r"has shape \[60\]"),
        ({"x": DATA.astype(str)}, "the model wants float32"),
        ({"x": DATA[:0]}, "no calibration sample"),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        calibration.read(tmp_path / "c.npz", model())


def test_sources_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        calibration.read(tmp_path / "none.npz", model())
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(UsageError, match=r"not an \.npz file"):
        calibration.read(tmp_path / "bad.npz", model())
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match=r"not an \.npz file"):
        calibration.read(tmp_path / "pickled.npz", model())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no calibration data"):
        calibration.read(tmp_path / "empty", model())
