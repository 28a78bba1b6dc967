"""Options that say where and how models run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import MACHINE, Option, group, titled
from onnxprune.cli.types import Known
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.runtime.bench import Place


# Every session starts as many as it is asked for.
MOST_THREADS = 1024
# Every worker is a process with a model of its own.
MOST_JOBS = 1024


@dataclass(frozen=True)
class Where:
    """Where times are measured, and models trained, as it was given; nothing is imported for it.

    Attributes:
        provider: execution provider of ONNX Runtime.
        threads: of a session; 0 is all cores.
    """

    provider: str
    threads: int

    def settled(self, sizes: Mapping[str, int]) -> Place:
        """The same, checked, with numbers for symbolic axes."""
        from onnxprune.runtime import Setting
        from onnxprune.runtime.bench import Place

        return Place(Setting(self.provider, self.threads), sizes=sizes)


threads = click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(0, MOST_THREADS),
    default=0,
    show_default=True,
    help="Threads; 0 is all cores.",
)


def _providers() -> list[str]:
    from onnxprune.runtime import provider_names

    return provider_names()


# Where a model runs while it is timed or trained; the command gets `place`.
place = group(
    "place",
    Where,
    titled(
        MACHINE,
        click.option(
            "--provider",
            metavar="NAME",
            type=Known(_providers),
            default="CPU",
            show_default=True,
            help="Execution provider of ONNX Runtime that times are measured on, and models trained on: CPU, CUDA, ...",
        ),
        threads,
    ),
)


def _workers(jobs: int | None, dask: str | None, *, default: int | None) -> Any:
    if dask is not None and jobs is not None:
        raise UsageError("--jobs and --dask cannot both be given", hint="a cluster says how many workers it has")
    if dask is None:
        from onnxprune.system import cores

        return jobs or default or cores()
    from onnxprune.runtime.dask import connected

    return click.get_current_context().with_resource(connected(dask))


def workers(default: int | None) -> Option:
    """Add where independent work is done; the command gets `workers`, as `runtime.workers.stream` takes it.

    A connection to a cluster is closed when the command ends.

    Args:
        default: local processes; None is one per core.
    """
    return group(
        "workers",
        partial(_workers, default=default),
        titled(
            MACHINE,
            click.option(
                "--jobs",
                metavar="N",
                type=click.IntRange(1, MOST_JOBS),
                default=None,
                help=f"Local worker processes; by default {default or 'one per core'}.",
            ),
            click.option(
                "--dask",
                metavar="SCHEDULER",
                help="Send the work to a Dask cluster: tcp://host:8786, or a scheduler file.",
            ),
        ),
    )
