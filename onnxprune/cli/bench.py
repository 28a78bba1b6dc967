"""`onnxprune bench`: time models against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE, Counts, Seconds

# Sessions of a model, times the longest that each of them goes on.
MOST_RUNS = 6000


@dataclass(frozen=True)
class BenchArgs:
    """What `bench` is asked for."""

    models: tuple[str, ...]
    batches: tuple[int, ...]
    seconds: float
    runs: int
    energy: bool
    place: Where
    sizes: Sizes
    force: bool
    told: Reporting

    @property
    def settled_sizes(self) -> Sizes:
        """The sizes of the inputs, without that of the first axis where batches say it."""
        if not self.batches:
            return self.sizes
        return replace(
            self.sizes, shapes={n: (None, *shape[1:]) if shape else () for n, shape in self.sizes.shapes.items()}
        )


@click.command(cls=Titled)
@click.argument("models", nargs=-1, required=True, type=FILE)
@click.option("--batch", "batches", metavar="N,N", type=Counts(), default=(), help="Samples in a run: 1,8.")
@click.option(
    "--seconds",
    metavar="S",
    type=Seconds(0, 3600),
    default=2.0,
    show_default=True,
    help="Time to measure every model for, at every batch.",
)
@click.option(
    "--runs",
    metavar="N",
    type=click.IntRange(1, MOST_RUNS),
    default=20,
    show_default=True,
    help="Fewest runs to measure.",
)
@click.option(
    "--energy",
    is_flag=True,
    help="Also the energy of a run: by the processor's counters (RAPL) where they can be read, else an estimate.",
)
@place
@sizes
@shared.force
@reporting
@shared.conversation
@request(BenchArgs)
def bench(console: Console, args: BenchArgs) -> None:
    """Measure time, memory and size of MODELS, and compare them to the first.

    The models run in turn, in several sessions each, with all of ONNX Runtime's optimisations. A difference that
    is within the noise is not called one. Throughput is samples per second.
    """
    paths.check_one_pipe(*args.models)
    args.told.check(inputs=args.models, force=args.force)
    console.progress("loading")
    from onnxprune.report import data, text
    from onnxprune.runtime import bench as benching

    models = [args.settled_sizes.load(name) for name in args.models]
    place = args.place.settled(args.sizes.numbers)
    results = benching.bench(
        models,
        place=place,
        batches=args.batches,
        seconds=args.seconds,
        runs=args.runs,
        progress=console.progress,
    )
    if args.energy:
        from onnxprune.pipelines.run_energy import with_energy

        console.progress("measuring energy")
        results = with_energy(results, models, place=place, seconds=args.seconds)
    about = {"provider": args.place.provider, "threads": args.place.threads}
    document = data.header("bench") | about | {"models": data.benched_json(results)}
    files = {f"model {n}": name for n, name in enumerate(args.models, 1)}
    title = f"times of {', '.join(map(paths.shown, args.models))}"
    args.told.tell(console, Account(title, document, text.benched(results), files))
