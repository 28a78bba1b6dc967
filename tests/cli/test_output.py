"""What is said on the two streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import DIGITS


def test_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "ops"], stdout=write, stderr=subprocess.PIPE, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_quiet_says_nothing(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "") and (tmp_path / "small.onnx").exists()


def test_verbose_tells_stages(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "-v")
    assert "tracing ..." in ran.err and "rewriting" in ran.err.splitlines()[-4] + ran.err
