"""Samples from the user's own code, and what is said about code that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxprune import calibration
from onnxprune.errors import RunError, UsageError
from tests.calibration.test_calibration import model, together


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_inputs.py").write_text(
        "import numpy as np\n"
        "def feeds():\n    for i in range(5):\n        yield {'x': np.full((2, 3), i, np.float32)}\n"
        "def broken():\n    yield {'x': np.ones((1, 3), np.float32)}\n    raise KeyError('no such row')\n"
        "def rows():\n    return [[1, 2, 3]]\n"
        "number = 3\n"
    )
    (tmp_path / "my_bad.py").write_text("import no_such_package\n")
    yield
    for name in ("my_inputs", "my_bad"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("own_code")
def test_function_in_the_working_folder():
    before = list(sys.path)
    runs = calibration.read("my_inputs:feeds", model(), samples=7)
    assert together(runs)[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3] and sys.path == before


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("my_missing:feeds", UsageError, "no module is called 'my_missing'"),
        ("my_inputs:nothing", UsageError, "has no function 'nothing'"),
        ("my_inputs:number", UsageError, "has no function 'number'"),
        ("my_inputs:rows", UsageError, "feed 0 of my_inputs:rows is a list, not a mapping"),
        ("my_inputs:broken", RunError, "my_inputs:broken failed: KeyError: 'no such row'"),
        ("my_bad:feeds", RunError, "my_bad:feeds failed: ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_functions_that_fail(spec: str, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        calibration.read(spec, model())
