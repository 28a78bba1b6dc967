"""The user's own measure of a model: a Python function or a shell command; higher is better."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.calibration import script
from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model, save

MODEL = "{model}"
# A first word of a shell command that can be looked up: no quotes, variables or assignments.
_PLAIN_WORD = re.compile(r"[\w./+-]+")


@dataclass(frozen=True)
class Evaluation:
    """How good a model is.

    Attributes:
        spec: `module:function` (called with the path of the model's file, gives a number), a shell command with
            `{model}` in it (which prints a number in its last line), or such a function itself.
    """

    spec: str | Callable[[str], float]

    def __post_init__(self) -> None:
        if isinstance(self.spec, str) and MODEL not in self.spec and not script.NAME.fullmatch(self.spec):
            raise UsageError(
                f"--eval {self.spec!r} is neither module:function nor a command with {MODEL} in it",
                hint=f"write --eval mine:accuracy, or --eval 'python mine.py {MODEL}'",
            )

    def check(self) -> None:
        """Refuse, before any work, a function that cannot be imported and a command that does not exist.

        Raises:
            UsageError: there is no such function or command.
            RunError: the module of the function fails.
        """
        if isinstance(self.spec, str) and MODEL in self.spec:
            _check_command(self.spec)
        else:
            with script.from_here(), script.guarded(self.name):
                self._function()

    @property
    def name(self) -> str:
        """What people, and caches, call it."""
        if isinstance(self.spec, str):
            return self.spec
        return f"{self.spec.__module__}:{getattr(self.spec, '__qualname__', type(self.spec).__qualname__)}"

    @property
    def digest(self) -> str:
        """What its values depend on, as far as that can be told: its text, and the files that this names."""
        content = hashlib.sha256(self.name.encode())
        for path in self._files():
            content.update(path.read_bytes())
        return f"{self.name} sha256:{content.hexdigest()}"

    def _files(self) -> list[Path]:
        if isinstance(self.spec, str) and MODEL in self.spec:
            words = self.spec.replace("'", " ").split()
            return [Path(word) for word in words if os.path.isfile(word)]  # noqa: PTH113 (a word may be no path at all)
        module = self.name.partition(":")[0]
        with script.from_here(), script.guarded(self.name), contextlib.suppress(ImportError, ValueError):
            found = importlib.util.find_spec(module)
            return [Path(found.origin)] if found and found.origin and Path(found.origin).is_file() else []
        return []

    def of(self, model: Model) -> float:
        """The value of `model`, which is written to a temporary file.

        Raises:
            UsageError: there is no such function.
            RunError: the function or command fails, or gives no number.
        """
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
            path = Path(folder) / "model.onnx"
            save(model, path)
            return self.of_file(str(path))

    def of_file(self, path: str) -> float:
        """The value of the model in a file."""
        found: Any
        if isinstance(self.spec, str) and MODEL in self.spec:
            found = _printed(self.spec, path)
        else:
            with script.from_here(), script.guarded(self.name):
                found = self._function()(path)
        try:
            value = float(found)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise RunError(f"--eval {self.name}: {str(found)[:80]!r} is no number", hint="a finite number is expected")
        return value

    def _function(self) -> Callable[[str], float]:
        if not isinstance(self.spec, str):
            return self.spec
        return script.function("--eval", self.spec, "take the path of a model")


def _check_command(command: str) -> None:
    """Refuse a shell command that begins with a word that the shell does not know."""
    word = command.split()[0]
    if not _PLAIN_WORD.fullmatch(word):  # something that only the shell understands
        return
    known = subprocess.run(["sh", "-c", 'command -v "$1"', "sh", word], capture_output=True, check=False)
    if known.returncode:
        raise UsageError(f"--eval {command}: no command is called {word!r}", hint="name a program that is there")


def _printed(command: str, path: str) -> str:
    """The last line that a shell command prints."""
    done = subprocess.run(
        command.replace(MODEL, shlex.quote(path)), shell=True, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = f": {said[-1]}" if said else ""
        raise RunError(f"--eval {command}: exit code {done.returncode}{last}", hint="run it by itself to see why")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
