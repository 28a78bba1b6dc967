"""`onnxprune bench`."""

from __future__ import annotations

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.output import Console
from onnxprune.cli.types import Counts


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--batch", "batches", metavar="N,N", type=Counts(), default=(), help="Samples in a run: 1,8.")
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0, 3600),
    default=2.0,
    show_default=True,
    help="Time to measure every model for, at every batch.",
)
@click.option(
    "--runs", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="Fewest runs to measure."
)
@shared.place
@shared.as_json
@shared.conversation
def bench(
    console: Console,
    models: tuple[str, ...],
    batches: tuple[int, ...],
    seconds: float,
    runs: int,
    place: shared.Where,
    as_json: bool,
) -> None:
    """Measure time, memory and size of MODELS, and compare them to the first.

    The models run in turn, in several sessions each, with all of ONNX Runtime's optimisations. A difference that
    is within the noise is not called one. Throughput is samples per second.
    """
    paths.check_one_pipe(*models)
    console.progress("loading")
    from onnxprune.report import data, text
    from onnxprune.runtime import bench as benching

    results = benching.bench(
        [paths.load(name) for name in models],
        place=place.settled(),
        batches=batches,
        seconds=seconds,
        runs=runs,
        progress=console.progress,
    )
    if as_json:
        about = {"provider": place.provider, "threads": place.threads}
        console.put_json(data.header("bench") | about | {"models": data.benched(results)})
    else:
        console.put(text.benched(results))
