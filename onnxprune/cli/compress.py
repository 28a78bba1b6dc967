"""`onnxprune compress`: take out what a model's function does not need, or make products of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.low_rank import low_rank
from onnxprune.cli.options.reporting import reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed, UsageError

if TYPE_CHECKING:
    from onnxprune.allocation.ranks import LowRankOptions
    from onnxprune.model import Model
    from onnxprune.pipelines.compress import Compressed
    from onnxprune.pipelines.low_rank import Factorised


# What `--help` shows.
USUAL = ("--output", "--exact", "--ratio", "--rank", "--params", "--keep", "--data", "--dry-run")


@dataclass(frozen=True)
class CompressArgs(shared.Results):
    """What `compress` is asked for."""

    exact: bool
    low_rank: LowRankOptions | None
    sizes: Sizes
    verify: bool
    accept_damage: bool
    time: bool
    place: Where
    data: Data

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_results("small.onnx")
        paths.check_distinct(self.output, self.plan_out)
        if self.plan_out is not None and self.exact:
            raise UsageError(
                "--plan-out cannot be written with --exact: a plan holds products of the weights that MODEL has",
                hint="carry --exact out by itself before",
            )

    @property
    def is_exact(self) -> bool:
        """Whether what is not needed goes."""
        return self.exact or self.low_rank is None


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the smaller model goes; - is standard output.")
@click.option(
    "--exact",
    is_flag=True,
    help="Take out what is not needed; the default unless --ratio, --rank or a budget is given.",
)
@low_rank
@sizes
@shared.verify
@shared.accept_damage
@shared.time
@place
@data
@click.option("--plan-out", type=FILE, help="Also write the plan: which weights became products, as JSON.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(CompressArgs)
def compress(console: Console, args: CompressArgs) -> None:
    """Take out of MODEL what its function does not need, and prove that the outputs stay what they are.

    Dead nodes, no-ops, repeated expressions and unread outputs go, constants are computed, what scales and shifts a
    contraction is folded into its weight, contractions in a row are merged where that is smaller, and equal weights
    are stored once. Names, types and sizes of inputs and outputs stay, and no file gets larger.

    With --ratio, --rank or a budget, weights become products of two smaller ones, at a loss: the directions of every
    layer's outputs stay that matter most on --data, and the rest is fitted to what MODEL gives.
    """
    args.check()
    source = args.load(console, args.sizes)
    exact, lossy = _compressed(console, source, args)
    last = lossy or exact
    assert last is not None
    args.write(console, last.model, args.plan_text(lossy.plan) if lossy is not None else {})
    with missed_budgets.damage_last(console, lossy.judged if lossy else None, accepted=args.accept_damage):
        _report(console, source, (exact, lossy), args)


def _compressed(console: Console, source: Model, args: CompressArgs) -> tuple[Compressed | None, Factorised | None]:
    """Take out what is not needed, and make products, as far as either is asked for.

    Raises:
        GoalMissed: a result is not proven.
    """
    from onnxprune.pipelines.compress import compressed
    from onnxprune.pipelines.low_rank import factorised
    from onnxprune.pipelines.prune import check_proven
    from onnxprune.pipelines.run_inputs import RunInputs

    inputs = RunInputs(args.data.source, args.data.samples, args.sizes.numbers)
    timed = args.time or (args.low_rank is not None and "latency" in args.low_rank.budgets)
    where = args.place.settled(args.sizes.numbers) if timed else None
    given: dict[str, Any] = {"verify": args.verify, "place": where, "progress": console.progress}
    exact = compressed(source, inputs, **given) if args.is_exact else None
    if exact is not None:
        check_proven(exact.groups, exact.verdict)
    if args.low_rank is None:
        return exact, None
    lossy = factorised(exact.model if exact is not None else source, args.low_rank, inputs, **given)
    check_proven(lossy.groups, lossy.verdict)
    return exact, lossy


def _report(
    console: Console, source: Model, done: tuple[Compressed | None, Factorised | None], args: CompressArgs
) -> None:
    """Tell what was done.

    Raises:
        GoalMissed: a budget was missed.
    """
    from onnxprune.report import compress as report
    from onnxprune.report import data as plain
    from onnxprune.report import low_rank as products
    from onnxprune.report import text

    exact, lossy = done
    document = plain.header("compress")
    document |= {} if exact is None else report.compress_data(exact)
    document |= {} if lossy is None else products.low_rank_data(lossy)
    lines = [] if exact is None else [*report.compress_lines(exact), *([""] if lossy is not None else [])]
    lines += [] if lossy is None else products.low_rank_lines(lossy)
    last = lossy or exact
    assert last is not None
    args.tell(console, document, lines, models=(source, last.model), sizes=args.sizes.numbers)
    for part in (exact, lossy):
        console.detail(text.stages(part.seconds) if part is not None else [])
    missed = [goal for goal in (lossy.goals if lossy is not None else ()) if not goal.met]
    if missed:
        raise GoalMissed(
            "; ".join(text.missed(goal) for goal in missed),
            hint="no lower ranks are allowed: --round-to 1, or --only less",
        )
