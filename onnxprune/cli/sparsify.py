"""`onnxprune sparsify`: set weights to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.kept_training import KeptTraining
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.execution import Where, place, workers
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.options.sparsity import zeros
from onnxprune.cli.options.training import Learning, learning_zeros, resume
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.sparsified import Sparsified
    from onnxprune.sparsity import SparsifyOptions


# What `--help` shows.
USUAL = ("--output", "--sparsity", "--pattern", "--method", "--keep", "--data", "--train", "--dry-run")


@dataclass(frozen=True)
class SparsifyArgs(shared.Results):
    """What `sparsify` is asked for."""

    options: SparsifyOptions
    sizes: Sizes
    verify: bool
    time: bool
    place: Where
    workers: Any
    data: Data
    learning: Learning
    resume: bool
    accept_damage: bool

    @property
    def kept(self) -> KeptTraining:
        """Where training is kept until the model is written."""
        return KeptTraining(self.written if self.learning.steps else None, self.resume)

    @property
    def may_replace(self) -> bool:
        """Whether existing files may be overwritten: those of an interrupted run may."""
        return self.force or self.kept.goes_on

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_results("sparse.onnx")
        self.kept.check(inputs=[self.model], force=self.force)
        paths.check_distinct(self.output, self.plan_out)


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the model with zeros goes; - is standard output.")
@zeros
@sizes
@shared.verify
@shared.time
@place
@workers(1)
@data
@learning_zeros
@resume
@shared.accept_damage
@click.option("--plan-out", type=FILE, help="Also write the plan: which elements became zero, as JSON.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(SparsifyArgs)
def sparsify(console: Console, args: SparsifyArgs) -> None:
    """Set single weights of MODEL to zero, and prove the result.

    MODEL is a file, or - for standard input. All sizes stay as they are: zeros make a file smaller once it is
    compressed or stored sparse (--storage), and hardly any runtime faster; `onnxprune prune` removes channels, which
    does. The result is valid, runs, and, before the weights that stay are fitted, equals the original with the same
    elements masked.
    """
    args.check()
    source = args.load(console, args.sizes)
    done = _sparsified(console, source, args)
    args.write(console, done.model, args.plan_text(done.plan))
    args.kept.remove()
    with missed_budgets.damage_last(console, done.judged, accepted=args.accept_damage):
        _report(console, source, done, args)


def _sparsified(console: Console, source: Model, args: SparsifyArgs) -> Sparsified:
    """Choose the zeros.

    Raises:
        GoalMissed: the proof failed.
    """
    from onnxprune.pipelines.prune import check_proven
    from onnxprune.pipelines.run_inputs import RunInputs
    from onnxprune.pipelines.sparsify import sparsified

    training = args.learning.settled(args.kept, args.place, args.workers)
    inputs = RunInputs(args.data.source, args.data.samples, args.sizes.numbers, training)
    where = args.place.settled(args.sizes.numbers) if args.time else None
    done = sparsified(source, args.options, inputs, verify=args.verify, place=where, progress=console.progress)
    check_proven(done.groups, done.verdict)
    return done


def _report(console: Console, source: Model, done: Sparsified, args: SparsifyArgs) -> None:
    from onnxprune.cost import count_nonzeros
    from onnxprune.model import load
    from onnxprune.report import data as plain
    from onnxprune.report import sparsify as report
    from onnxprune.report import text

    is_file = args.written not in (None, paths.PIPE)
    written = load(args.written) if is_file else done.model
    nonzeros = count_nonzeros(done.groups, source), count_nonzeros(done.groups, written)
    document = plain.header("report") | report.sparsify_data(done, nonzeros=nonzeros)
    lines = report.sparsify_lines(done, nonzeros=nonzeros)
    args.tell(console, document, lines, models=(source, written), sizes=args.sizes.numbers)
    if args.told.as_json:
        return
    if args.data.source is None and args.options.method == "auto":
        console.hint(
            "nothing was fitted; --data FILE, a few hundred inputs without labels, chooses better zeros and"
            " undoes most of the damage"
        )
    if done.speed is not None and not done.speed.is_faster:
        console.hint(report.ADVICE)
    console.detail(text.stages(done.seconds))
