"""`onnxprune shrink`: remove dead units without loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE, Interval
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.shrink import Shrunk


@dataclass(frozen=True)
class ShrinkArgs(shared.Results):
    """What `shrink` is asked for."""

    tolerance: float
    input_range: tuple[tuple[str, tuple[float, float]], ...]
    sizes: Sizes
    verify: bool
    data: Data

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_results("small.onnx", plan_hint="write the model or the JSON to standard output instead")
        names = [name for name, _ in self.input_range]
        if len(set(names)) < len(names):
            raise UsageError("an input has two ranges", hint="give one --input-range for each input")
        paths.check_distinct(self.output, self.plan_out)


@click.command(cls=Titled)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the smaller model goes; - is standard output.")
@click.option(
    "--tolerance",
    metavar="T",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.0,
    show_default=True,
    help="Weights of at most this size count as zero; outputs may differ by this share of their largest.",
)
@click.option(
    "--input-range",
    metavar="[INPUT=]LOW:HIGH",
    type=Interval(),
    multiple=True,
    help="What the float inputs, or one of them, always lie between; units that are dead inside go too.",
)
@sizes
@shared.verify
@data
@click.option("--plan-out", type=FILE, help="Also write which units were removed, as JSON.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(ShrinkArgs)
def shrink(console: Console, args: ShrinkArgs) -> None:
    """Remove what is dead in MODEL, and nothing else: the result equals MODEL itself.

    Units go whose outputs are zero or constant whatever the inputs are, that nothing reads, or that are multiples
    of others, and nodes and weights that no output depends on; again and again, until nothing changes. The result
    is proven on random inputs, and on --data.
    """
    args.check()
    source = args.load(console, args.sizes)
    shrunk = _shrunk(console, source, args)
    from onnxprune.pipelines.shrink import plan_of

    args.write(console, shrunk.model, args.plan_text(plan_of(shrunk, args.sizes.numbers)))
    _report(console, source, shrunk, args)


def _shrunk(console: Console, source: Model, args: ShrinkArgs) -> Shrunk:
    """Shrink.

    Raises:
        GoalMissed: the result is not proven.
    """
    from onnxprune.pipelines.prune import check_proven
    from onnxprune.pipelines.shrink import ShrinkOptions, shrink_model

    options = ShrinkOptions(
        tolerance=args.tolerance, ranges=dict(args.input_range), sizes=args.sizes.numbers, verify=args.verify
    )
    shrunk = shrink_model(source, options, data=args.data.source, samples=args.data.samples, progress=console.progress)
    check_proven(shrunk.groups, shrunk.verdict)
    return shrunk


def _report(console: Console, source: Model, shrunk: Shrunk, args: ShrinkArgs) -> None:
    from onnxprune.report import data as plain
    from onnxprune.report import shrink as report
    from onnxprune.report import text

    document, models = plain.header("shrink") | report.document(shrunk), (source, shrunk.model)
    args.tell(console, document, report.lines(shrunk), models=models, sizes=args.sizes.numbers)
    console.detail(text.stages(shrunk.seconds))
