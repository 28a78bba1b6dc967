"""What a killed writer leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from onnxprune.model import load, save
from tests.measure import kills

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("kind", kills.KINDS, ids=str)
def test_killed_at_every_step(kind: kills.Kind) -> None:
    found = kills.at_every_step(kind)
    assert len(found) > 2 and found[-1] == "complete"
    assert found[0] == ("older" if kind.over else "absent")


@pytest.mark.parametrize("kind", kills.KINDS, ids=str)
def test_killed_at_random_moments(kind: kills.Kind) -> None:
    found = kills.at_random_moments(kind, 5)
    assert found["killed"] == 5 <= found["absent"] + found["older"] + found["complete"]


def test_the_next_run_removes_what_a_killed_one_left(tmp_path) -> None:
    model = load(kills.MODELS / "digits.onnx")
    left = [tmp_path / f".small.onnx{kind}.0123abcd.tmp" for kind in ("", ".data")]
    other = [tmp_path / name for name in (".other.onnx.0123abcd.tmp", "small.onnx.tmp", ".small.onnx.tmp")]
    for path in (*left, *other):
        path.write_bytes(b"half")
    save(model, tmp_path / "small.onnx", external=True)
    assert not any(path.exists() for path in left) and all(path.exists() for path in other)


def test_what_another_run_is_writing_stays(tmp_path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom onnxprune.system import replacing\n"
    code += "with replacing(Path(sys.argv[1])) as files:\n print(flush=True); sys.stdin.read(); files[0].write(b'x')"
    target = tmp_path / "small.onnx"
    command = [sys.executable, "-c", code, str(target)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=kills.MODELS.parent)
    assert process.stdin and process.stdout
    process.stdout.readline()
    save(load(kills.MODELS / "digits.onnx"), target)
    process.stdin.close()
    assert process.wait() == 0
    assert target.read_bytes() == b"x"
