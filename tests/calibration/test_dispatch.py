"""Sources, told apart by what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune import calibration
from onnxprune.cli import main
from onnxprune.errors import UsageError
from tests.calibration.test_calibration import DATA, MODELS, model


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
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(UsageError, match=r"\.md says nothing"):
        calibration.read(tmp_path / "notes.md", model())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:60])
    with pytest.raises(UsageError, match=r"not an \.npz file"):
        calibration.read(tmp_path / "cut.npz", model())


def test_messages_say_what_to_do():
    with pytest.raises(UsageError) as error:
        calibration.read([{"X": DATA}], model())
    assert error.value.message == "feed 0 of the calibration data: input 'x' is missing"
    assert error.value.hint == "the model's inputs are 'x' (float32 [n, 3]); the data has 'X'"
    with pytest.raises(UsageError) as error:
        calibration.read([{"input": DATA}], model(inputs=("input.1",)))
    assert error.value.hint.endswith("the data has 'input'; rename 'input' to 'input.1'")
    with pytest.raises(UsageError, match="inputs differ in their number of samples: a has 20, b has 19"):
        calibration.read({"a": DATA, "b": DATA[1:]}, model(inputs=("a", "b")))
    with pytest.raises(UsageError, match="holds 0 to 300, too much for uint8"):
        calibration.read({"x": np.array([[0, 1, 300]])}, model(elem_type=TensorProto.UINT8))
    with pytest.raises(UsageError, match="is float32, the model wants uint8"):
        calibration.read({"x": DATA}, model(elem_type=TensorProto.UINT8))
    with pytest.raises(UsageError, match="4 found, and the model runs on 6 at a time"):
        calibration.read(DATA, model(6), samples=4)
    with pytest.raises(UsageError, match="a int is no source of feeds"):
        calibration.read(3, model())
    with pytest.raises(UsageError, match="an array fits models with one input, this one has 2: a, b"):
        calibration.read(DATA, model(inputs=("a", "b")))


def test_options_for_other_sources_are_refused(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA)
    for option in ({"preprocess": "imagenet"}, {"tokenizer": "tokenizer.json"}):
        for data in ("random", "my_inputs:feeds", [{"x": DATA}]):
            with pytest.raises(UsageError, match=f"--{next(iter(option))} is for "):
                calibration.read(calibration.Source(data, **option), model())
    with pytest.raises(UsageError, match="--preprocess is for a folder of images"):
        calibration.read(calibration.Source(tmp_path / "c.npz", preprocess="raw"), model())


def test_options_without_data_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["prune", str(MODELS / "digits.onnx"), "--dry-run", "--preprocess", "unit"]) == 2
    assert "--preprocess has no effect: it says how to read --data, which is missing" in capsys.readouterr().err
