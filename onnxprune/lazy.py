"""Public names that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package (PEP 562).

    Args:
        package: the dotted name of the package.
        homes: public name -> the module that defines it, with `:name` behind it where it goes by another name there.

    Returns:
        A function from a public name to what it stands for, which it imports.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other = homes[name].partition(":")
        return getattr(import_module(module), other or name)

    return find


def homes_in(package: str, modules: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Turn modules of a package and the public names that each defines into what `on_first_use` takes."""
    return {name: f"{package}.{module}" for module, names in modules.items() for name in names}
