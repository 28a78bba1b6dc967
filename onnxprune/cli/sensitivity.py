"""`onnxprune sensitivity`: measure what it costs to cut each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.cache import Cache, cached
from onnxprune.cli.options.data import Data, data, evaluation, recovery
from onnxprune.cli.options.execution import workers
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.selection import choice
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE, Ratios

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.pipelines.sensitivity import SensitivityConfig

METRICS = ("error", "sqnr", "cosine", "kl", "top1")


# What `--help` shows.
USUAL = ("--data", "--eval", "--metric", "--ratios", "--criterion", "--picture", "--jobs", "--json")


@dataclass(frozen=True)
class SensitivityArgs:
    """What `sensitivity` is asked for: what is measured, how, and where the results go."""

    model: str
    ratios: tuple[float, ...]
    metric: str
    evaluate: str | None
    recover: str
    data: Data
    options: Options
    sizes: Sizes
    workers: Any
    cache: Cache
    force: bool
    told: Reporting

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.told.check(inputs=[self.model], force=self.force)

    def settings(self) -> SensitivityConfig:
        """How to measure."""
        from onnxprune.pipelines import Evaluation
        from onnxprune.pipelines.sensitivity import SensitivityConfig
        from onnxprune.recovery import RecoveryOptions as Recovery

        return SensitivityConfig(
            self.ratios,
            self.data.samples,
            self.sizes.numbers,
            None if self.evaluate is None else Evaluation(self.evaluate),
            None if self.recover == "none" else Recovery(self.recover),
        )


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option(
    "--ratios",
    metavar="LIST",
    type=Ratios(),
    default="0.1,0.3,0.5,0.7,0.9",
    show_default=True,
    help="Shares of a group's units that are removed, each measured by itself.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default="error",
    show_default=True,
    help="What is shown: squared output error, signal to noise, cosine, divergence of classes, same class.",
)
@evaluation
@recovery("none", "Re-fit what is behind a cut before every measurement.")
@data
@choice
@sizes
@workers(None)
@cached("measurement")
@shared.force
@reporting
@shared.conversation
@request(SensitivityArgs)
def sensitivity(console: Console, args: SensitivityArgs) -> None:
    """Measure what it costs the outputs of MODEL to cut each group, one group at a time.

    No labels are needed: outputs are compared with the original's on the inputs that --data gives. --ratio and what
    else says what to prune choose the cut that is marked. Finished measurements are kept: an interrupted command
    goes on where it was.
    """
    args.check()
    console.progress("loading")
    from onnxprune.pipelines.sensitivity import measure_curves
    from onnxprune.report import sensitivity as report

    source = args.sizes.load(args.model)
    found = measure_curves(
        source,
        args.options,
        args.settings(),
        args.data.source,
        workers=args.workers,
        cache=args.cache.path("sensitivity", source.digest),
        metric="" if args.evaluate else args.metric,
        progress=console.progress,
    )
    title, files = f"sensitivity of {paths.shown(args.model)}", {"model": args.model}
    args.told.tell(console, Account(title, files | found.as_json(), report.sensitivity_lines(found), files))
