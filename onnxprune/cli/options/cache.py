"""Options that say where finished work is kept, so that an interrupted command goes on where it was."""

from __future__ import annotations

from dataclasses import dataclass

import click

from onnxprune.cli import paths
from onnxprune.cli.options.group import MACHINE, Option, group, titled
from onnxprune.cli.types import FILE
from onnxprune.errors import UsageError


@dataclass(frozen=True)
class Cache:
    """Where finished work is kept: a file that was named, nowhere, or a file per model."""

    file: str | None
    is_off: bool

    def path(self, kind: str, digest: str) -> str | None:
        """The file for work of a kind on the model of a digest; None keeps nothing."""
        if self.is_off or self.file is not None:
            return self.file
        from onnxprune.runtime import cache_folder

        return str(cache_folder() / kind / f"{digest.removeprefix('sha256:')[:24]}.jsonl")


def _cache(cache: str | None, no_cache: bool) -> Cache:
    if cache is not None and no_cache:
        raise UsageError("--cache and --no-cache cannot both be given")
    if cache is not None:
        paths.check_kept(cache)
    return Cache(cache, no_cache)


def cached(what: str, more: str = "") -> Option:
    """Add `--cache` and `--no-cache`; the command gets `cache`.

    Args:
        what: what is kept, in the singular.
        more: what else the help says of the file.
    """
    return group(
        "cache",
        _cache,
        titled(
            MACHINE,
            click.option(
                "--cache",
                type=FILE,
                help=f"Where every finished {what} is kept; by default a file per model in the user's cache folder"
                + (f"; {more}." if more else "."),
            ),
            click.option("--no-cache", is_flag=True, help=f"Keep no {what}, and use none that was kept."),
        ),
    )
