"""Samples put together to runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune import calibration
from onnxprune.errors import UsageError
from onnxprune.model import load
from tests.calibration.test_calibration import DATA, model, together


def test_npz_in_batches(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA, label=np.arange(20))
    runs = calibration.read(tmp_path / "c.npz", model(), batch=8)
    assert [len(run["x"]) for run in runs] == [8, 8, 4] and list(runs[0]) == ["x"]
    assert np.array_equal(together(runs), DATA)
    assert [len(run["x"]) for run in calibration.read(tmp_path / "c.npz", model(), batch=2)] == [2] * 10


def test_fewer_samples_are_drawn_from_the_whole_array(tmp_path: Path):
    """Many files are sorted by class: the first ones would show one class only."""
    np.savez(tmp_path / "c.npz", x=DATA)
    drawn, again = (together(calibration.read(str(tmp_path / "c.npz"), model(), samples=9, batch=4)) for _ in range(2))
    rows = [DATA.tolist().index(row) for row in drawn.tolist()]
    assert len(set(rows)) == 9 and max(rows) > 9
    assert np.array_equal(drawn, again)


def test_fixed_batch_takes_whole_batches_only(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA)
    assert [len(run["x"]) for run in calibration.read(tmp_path / "c.npz", model(6))] == [6, 6, 6]


def test_samples_of_several_files_share_runs(tmp_path: Path):
    for i, row in enumerate(DATA):
        np.save(tmp_path / f"{i:03}.npy", row)
    assert [len(run["x"]) for run in calibration.read(tmp_path, model(), batch=8)] == [8, 8, 4]
    assert [len(run["x"]) for run in calibration.read(tmp_path, model(6))] == [6, 6, 6]
    assert [len(run["x"]) for run in calibration.read(tmp_path, model(), sizes={"n": 9})] == [9, 9]


def test_feeds_from_python_stay_apart_unless_the_batch_is_fixed():
    feeds = [{"x": DATA[:5]}, {"x": DATA[5:8]}, {"x": DATA[8:]}]
    assert [len(run["x"]) for run in calibration.read(feeds, model())] == [5, 3, 12]
    runs = calibration.read(feeds, model(6))
    assert [len(run["x"]) for run in runs] == [6, 6, 6] and np.array_equal(together(runs), DATA[:18])
    assert [len(run["x"]) for run in calibration.read(feeds, model(), sizes={"n": 10})] == [10, 10]


def test_feeds_of_one_sample_are_put_together():
    rows = [{"x": row[None]} for row in np.repeat(DATA, 5, axis=0)]
    runs = calibration.read(rows, model())
    assert [len(run["x"]) for run in runs] == [13] * 7 + [9]
    assert np.array_equal(together(runs), np.repeat(DATA, 5, axis=0))
    assert [len(run["x"]) for run in calibration.read([*rows[:3], {"x": DATA[:2]}], model())] == [1, 1, 1, 2]


def test_there_are_eight_runs_if_there_are_eight_samples():
    """Some fit, others judge: with few runs most samples would only judge."""
    many = np.repeat(DATA, 20, axis=0)
    assert [len(run["x"]) for run in calibration.read({"x": many}, model(), samples=400)] == [32] * 12 + [16]
    assert [len(run["x"]) for run in calibration.read({"x": many[:64]}, model())] == [8] * 8
    assert [len(run["x"]) for run in calibration.read(DATA[:8], model())] == [1] * 8
    assert [len(run["x"]) for run in calibration.read(DATA[:3], model())] == [1, 1, 1]
    assert [len(run["x"]) for run in calibration.read(DATA[:1], model())] == [1]


def test_samples_of_different_length():
    free = model(rest=("t", 3))
    feeds = [{"x": np.full((1, 1 + i % 2, 3), i, np.float32)} for i in range(6)]
    for batch, lengths in (("n", [1] * 6), (2, [2, 2])):
        runs = calibration.read(feeds, model(batch, rest=("t", 3)))
        assert [len(run["x"]) for run in runs] == lengths
        assert all(len({run["x"].shape[1], *(1 + run["x"][:, 0, 0].astype(int) % 2)}) == 1 for run in runs)
    assert len(calibration.read(feeds, free, samples=4)) == 4


def test_inputs_without_a_common_batch_are_fed_as_they_are():
    values = [helper.make_tensor_value_info(*v) for v in (("x", 1, ["n", 3]), ("h", 1, [2, "n", 3]), ("rate", 7, []))]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "n", 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "h"], ["y"])], "g", values, [result])
    state = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    feed = {"x": DATA[:4], "h": np.zeros((2, 4, 3), np.float32), "rate": np.int64(16000)}
    runs = calibration.read([feed] * 3, state, samples=2)
    assert len(runs) == 2 and all(np.array_equal(runs[1][name], value) for name, value in feed.items())
    with pytest.raises(UsageError, match=r"'h' has shape \[1, 4, 3\]"):
        calibration.read([feed | {"h": np.zeros((1, 4, 3), np.float32)}], state)
