"""What holds for all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Before numpy is imported: the workers of a parallel run would fight over the cores, and take three times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Commands that tests start are compiled once, where the environment forbids to keep byte code beside the sources.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="onnxprune-bytecode-")
    atexit.register(shutil.rmtree, os.environ["PYTHONPYCACHEPREFIX"], ignore_errors=True)
