"""Samples as Polygraphy saves them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune import calibration
from onnxprune.errors import UsageError
from tests.calibration.test_calibration import DATA, model, together

# What `polygraphy.json.save_json([{"x": np.arange(6, dtype=np.float32).reshape(2, 3)}], path)` of 0.53.6 writes.
SAVED = """[
    {
        "x": {
            "array": "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAg\
ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAACAPwAAAEAAAEBAAACAQAAAoEA=",
            "polygraphy_class": "ndarray"
        }
    }
]"""


def encoded(array: np.ndarray, *, allow_pickle: bool = False) -> dict[str, str]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return {"array": base64.b64encode(file.getvalue()).decode(), "polygraphy_class": "ndarray"}


def test_polygraphy_json(tmp_path: Path):
    (tmp_path / "inputs.json").write_text(SAVED)
    assert np.array_equal(together(calibration.read(tmp_path / "inputs.json", model())), DATA[:2])


def test_folder_of_polygraphy_json(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"{i:010}.json").write_text(json.dumps({"x": encoded(DATA[i : i + 1])}))
    assert np.array_equal(together(calibration.read(tmp_path, model())), DATA[:3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", r"inputs\.json\[0\] is no feed"),
        (json.dumps({"lst": [], "polygraphy_class": "RunResults"}), "is no feed"),
        (json.dumps([{"x": {"tensor": "", "polygraphy_class": "Tensor"}}]), r"\[0\]\['x'\] is no array in Polygraphy"),
        (json.dumps([{"x": {"array": "not base64!"}}]), "holds no array"),
        (json.dumps([{"x": encoded(np.array([{}]), allow_pickle=True)}]), "holds no array: it holds Python objects"),
        (json.dumps([{"y": encoded(DATA)}]), "input 'x' is missing"),
    ],
)
def test_json_that_does_not_fit(tmp_path: Path, text: str, message: str):
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        calibration.read(tmp_path / "inputs.json", model())
