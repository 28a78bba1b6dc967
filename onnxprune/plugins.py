"""Rules and criteria of others: modules that register what they add when they are imported.

Installed packages name theirs as entry points of the groups `onnxprune.rules` and `onnxprune.criteria`; the command
line takes others with `--plugin`. Processes that this one starts find the latter in the environment.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from onnxprune.errors import UsageError

logger = logging.getLogger(__name__)

# The variable that `--plugin` can be given in, and that worker processes read.
VARIABLE = "ONNXPRUNE_PLUGIN"


def load_installed(group: str) -> None:
    """Import the modules that installed packages, and the environment, name; one that fails is warned about.

    Args:
        group: of entry points.
    """
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises must not end this program
            logger.warning("plugin %r (%s) is left out: %s: %s", point.name, point.value, type(error).__name__, error)
    with suppress(UsageError):  # who started this process was told
        load_modules(os.environ.get(VARIABLE, "").split())


def load_modules(names: Sequence[str]) -> None:
    """Import modules, those in the working folder first.

    Args:
        names: of modules.

    Raises:
        UsageError: there is no such module, or it fails.
    """
    here = str(Path.cwd())
    for name in names:
        sys.path.insert(0, here)
        try:
            import_module(name)
        except Exception as error:
            raise UsageError(
                f"plugin {name}: {type(error).__name__}: {error}",
                hint="it is looked for in the working folder and among the installed packages; no .py at the end",
            ) from error
        finally:
            sys.path.remove(here)
    if names:
        os.environ[VARIABLE] = " ".join(names)
