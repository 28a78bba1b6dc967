"""Runs in another process, for models that may end it; the process is kept for the next run."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import OnnxPruneError, RunError
from onnxprune.model import Model, load, save
from onnxprune.runtime.memory import own_environment
from onnxprune.runtime.session import Session

CODE = "from onnxprune.runtime.trial import serve; serve()"
# What is said of a run that went well.
_WELL = "well"
_process: subprocess.Popen[str] | None = None


def check_run(model: Model, feeds: Mapping[str, np.ndarray], limit: float) -> None:
    """Run a model in another process.

    Args:
        model: the model.
        feeds: its inputs.
        limit: seconds that the run may take.

    Raises:
        RunError: it does not run, or ends the process.
    """
    texts = {name: value.astype(str) for name, value in feeds.items() if value.dtype == object}
    named: dict[str, Any] = {f"_{name}": value for name, value in {**feeds, **texts}.items()}
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        save(model, Path(folder) / "model.onnx")
        np.savez(Path(folder) / "feeds.npz", **named)
        said = _ask(f"{limit} {folder}")
    if said != _WELL:
        raise RunError(said)


def _ask(request: str) -> str:
    """What the other process answers; it is started where there is none."""
    global _process
    if _process is None:
        _process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=own_environment(),
        )
        atexit.register(_end, _process)
    process = _process
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(f"{request}\n")
        process.stdin.flush()
        answer = process.stdout.readline().rstrip("\n")
    except BrokenPipeError:
        answer = ""
    if answer:
        return answer
    _process = None
    _end(process)
    return f"ONNX Runtime ended its process (exit code {process.returncode})"


def _end(process: subprocess.Popen[str]) -> None:
    """Let the other process end; it does when nothing more can be asked."""
    try:
        process.communicate()
    except (OSError, ValueError):  # it ended before, with something unread
        process.wait()


def serve() -> None:
    """Run what standard input names, a line each, and say on standard output how that went."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native code may print what it likes
    for line in sys.stdin:
        limit, _, folder = line.rstrip("\n").partition(" ")
        try:
            with np.load(Path(folder) / "feeds.npz", allow_pickle=False) as stored:
                feeds = {name[1:]: stored[name] for name in stored.files}
            with Session(load(Path(folder) / "model.onnx", check=False), limit=float(limit)) as session:
                session.run(feeds)
            said = _WELL
        except OnnxPruneError as error:
            said = " ".join(error.message.split())
        answers.write(f"{said}\n")
        answers.flush()
