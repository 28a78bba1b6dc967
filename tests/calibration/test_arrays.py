"""Files of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import calibration
from onnxprune.errors import UsageError
from tests.calibration.test_calibration import DATA, model, together


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


def test_npz_with_one_array_per_sample(tmp_path: Path):
    np.savez(tmp_path / "rows.npz", *DATA)
    np.savez(tmp_path / "named.npz", **{"0": DATA[0], "1": DATA[1:4]})
    np.savez(tmp_path / "one.npz", DATA)
    np.save(tmp_path / "one.npy", DATA)
    for name, rows in (("rows.npz", DATA), ("named.npz", DATA[:4]), ("one.npz", DATA), ("one.npy", DATA)):
        assert np.array_equal(together(calibration.read(tmp_path / name, model())), rows)


def test_names_that_are_no_inputs_are_refused_whatever_their_number(tmp_path: Path):
    for names in (["image"], ["image", "label"], ["cat", "dog", "cow"]):
        np.savez(tmp_path / "named.npz", **dict.fromkeys(names, DATA))
        with pytest.raises(UsageError, match="input 'x' is missing") as error:
            calibration.read(tmp_path / "named.npz", model())
        assert f"the data has {', '.join(map(repr, names))}" in error.value.hint


def test_arrays_that_are_not_used_are_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    np.savez(tmp_path / "labelled.npz", x=DATA, y_true=np.arange(len(DATA)))
    assert np.array_equal(together(calibration.read(tmp_path / "labelled.npz", model(), samples=len(DATA))), DATA)
    assert "labelled.npz: 'y_true' is no input of the model, and not used" in caplog.text
    caplog.clear()
    np.savez(tmp_path / "plain.npz", x=DATA)
    calibration.read(tmp_path / "plain.npz", model())
    assert caplog.text == ""


def test_folder_of_npz(tmp_path: Path):
    for i in range(4):
        np.savez(tmp_path / f"{i}.npz", a=DATA[i : i + 1], b=-DATA[i : i + 1])
    runs = calibration.read(tmp_path, model(inputs=("a", "b")))
    assert np.array_equal(together(runs, "a"), DATA[:4]) and np.array_equal(together(runs, "b"), -DATA[:4])


def test_test_data_without_the_names_of_the_model_is_in_its_order(tmp_path: Path):
    (tmp_path / "test_data_set_0").mkdir()
    for i, sign in enumerate((1, -1)):
        tensor = numpy_helper.from_array(sign * DATA[:2], f"other_{i}")
        onnx.save_tensor(tensor, str(tmp_path / "test_data_set_0" / f"input_{i}.pb"))
    runs = calibration.read(tmp_path, model(inputs=("a", "b")))
    assert np.array_equal(together(runs, "a"), DATA[:2]) and np.array_equal(together(runs, "b"), -DATA[:2])
    (tmp_path / "test_data_set_0" / "input_1.pb").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"input_1\.pb holds no tensor"):
        calibration.read(tmp_path, model(inputs=("a", "b")))
