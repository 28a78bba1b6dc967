"""Peak memory of a running model, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from onnxprune.errors import RunError
from onnxprune.runtime.session import Deployed, Setting

STATUS = Path("/proc/self/status")
CODE = "import sys; from onnxprune.runtime.memory import measure; measure(*sys.argv[1:])"


def peak(model: Path, feeds: Mapping[str, np.ndarray], setting: Setting) -> int | None:
    """Bytes that loading `model` and running it takes at most; None where the system does not tell (but Linux does).

    Raises:
        RunError: the process failed.
    """
    if not STATUS.exists():
        return None
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "feeds.npz"
        texts = {name: value.astype(str) for name, value in feeds.items() if value.dtype == object}
        named: dict[str, Any] = {f"_{name}": value for name, value in {**feeds, **texts}.items()}
        report = Path(folder) / "bytes"
        np.savez(path, **named)
        arguments = (str(model), str(path), setting.provider, str(setting.threads), str(report))
        done = subprocess.run(
            [sys.executable, "-c", CODE, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=own_environment(),
        )
        if done.returncode:
            raise RunError(f"measuring memory failed: {(done.stderr.splitlines() or ['killed'])[-1]}")
        return int(report.read_text())


def own_environment() -> dict[str, str]:
    """The environment of this process, in which the package is found in any case."""
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}


def measure(model: str, feeds: str, provider: str, threads: str, report: str) -> None:
    """Load and run a model, and write the bytes that it took into the file `report`."""
    with np.load(feeds, allow_pickle=False) as stored:
        given = {name[1:]: stored[name] for name in stored.files}
    setting = Setting(provider, int(threads))  # loads the library, which does not count
    before = _status("VmRSS")
    with Deployed(Path(model), setting) as session:
        session.run(given)
        session.run(given)
    Path(report).write_text(str(max(0, _status("VmHWM") - before)))


def _status(field: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024
