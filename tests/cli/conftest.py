"""Commands run as `main` runs them, on the example models."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from onnxprune.cli import main

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")


@dataclass(frozen=True)
class Ran:
    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def json(self):
        return json.loads(self.raw)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsysbinary, monkeypatch) -> Run:
    monkeypatch.setattr(logging.getLogger("onnxprune"), "handlers", [])  # the command line's own go with the test

    monkeypatch.setattr("onnxprune.runtime.said_before", lambda text: False)  # every test is a user's first run

    def call(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(a) for a in arguments])
        said = capsysbinary.readouterr()
        return Ran(code, said.out, said.err.decode())

    return call


@pytest.fixture
def small(run, tmp_path) -> Path:
    assert run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--plan-out", tmp_path / "plan.json").code == 0
    return tmp_path / "small.onnx"


def widths(path: Path) -> dict[str, tuple[int, ...]]:
    return {t.name: tuple(t.dims) for t in onnx.load(path).graph.initializer}


def shell(*arguments: str, **given) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, cwd=Path(__file__).parents[2], check=False, **given
    )
