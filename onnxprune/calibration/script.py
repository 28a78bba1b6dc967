"""Samples from the user's own code."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxprune.calibration.objects import from_object
from onnxprune.calibration.source import Request, Samples
from onnxprune.errors import OnnxPruneError, RunError, Terminated, UsageError

NAME = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def from_function(spec: str, request: Request) -> Samples:
    """What `module:function` gives, called without arguments; modules in the working folder are found first."""
    with from_here(), guarded(spec):
        yield from from_object(function("--data", spec, "yield feeds: input name -> array")(), request, spec)


def from_callable(given: Callable[[], Any], request: Request) -> Samples:
    """What a function in Python gives, called without arguments.

    Raises:
        RunError: it failed.
    """
    name = getattr(given, "__name__", type(given).__name__)
    with guarded(name):
        yield from from_object(given(), request, name)


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Run a user's code, which may even try to end the program.

    Args:
        name: what messages call it.

    Raises:
        RunError: it raised anything but an error of ours, an interrupt, or the request to end.
    """
    try:
        yield
    except (OnnxPruneError, KeyboardInterrupt, Terminated, GeneratorExit):
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        raise RunError(f"{name} failed: {said}", hint="run it by itself to see why") from error


@contextmanager
def from_here() -> Iterator[None]:
    """Modules in the working folder are found first."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def function(option: str, spec: str, purpose: str) -> Callable[..., Any]:
    """What `module:function` names.

    Args:
        option: who asks, for messages.
        spec: the name; it matches `NAME`.
        purpose: what the function must do, for messages.

    Raises:
        UsageError: there is no such module or function.
    """
    module, _, name = spec.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"{option} {spec}: no module is called {error.name!r}",
            hint="it is looked for in the working folder and among the installed packages; no .py at the end",
        ) from error
    named = getattr(found, name, None)
    if not callable(named):
        raise UsageError(f"{option} {spec}: {found.__file__} has no function {name!r}", hint=f"it must {purpose}")
    return named
