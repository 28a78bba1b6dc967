"""`onnxprune evaluate`: judge models on data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, Judging, judging, test_data
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed, UsageError

if TYPE_CHECKING:
    from onnxprune.pipelines.evaluate import EvaluationData
    from onnxprune.pipelines.gates import Gates


# Seconds of timed runs of every model.
SECONDS = 2.0


@dataclass(frozen=True)
class EvaluateArgs:
    """What `evaluate` is asked for."""

    models: tuple[str, ...]
    data: Data
    judging: Judging
    max_drop: str | None
    max_divergence: str | None
    max_latency: str | None
    place: Where
    sizes: Sizes
    force: bool
    told: Reporting

    @property
    def gates(self) -> Gates:
        """What the models must keep."""
        from onnxprune.allocation import KINDS
        from onnxprune.allocation.amount import read_amount
        from onnxprune.pipelines.gates import Gates
        from onnxprune.pipelines.search_targets import divergence_constraint, drop_constraint

        return Gates(
            None if self.max_drop is None else drop_constraint(self.max_drop),
            None if self.max_divergence is None else divergence_constraint(self.max_divergence),
            None if self.max_latency is None else read_amount("latency", KINDS["latency"].unit, self.max_latency),
        )

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        paths.check_one_pipe(*self.models)
        self.told.check(inputs=self.models, force=self.force)
        gates = {
            "--max-drop": self.max_drop,
            "--max-divergence": self.max_divergence,
            "--max-latency": self.max_latency,
        }
        given = [name for name, value in gates.items() if value is not None]
        if given and len(self.models) < 2:
            raise UsageError(
                f"{given[0]} compares models with the first, and there is one", hint="name the original first"
            )
        if self.max_divergence is not None and self.data.source is None:
            raise UsageError("--max-divergence needs inputs", hint="add --data SOURCE")

    @property
    def wanted(self) -> EvaluationData:
        """What the models are judged by."""
        return self.judging.settled(self.data.source, samples=self.data.samples, sizes=self.sizes.numbers)


@click.command(cls=Titled)
@check_requirements
@click.argument("models", nargs=-1, required=True, type=FILE)
@test_data
@judging
@click.option(
    "--max-drop",
    metavar="AMOUNT",
    help="Exit with 1 if a model is worse than the first by more, in the first metric: 1% of the first's, or a number.",
)
@click.option(
    "--max-divergence",
    metavar="[METRIC=]AMOUNT",
    help="Exit with 1 if the outputs of a model differ from the first's by more: error (squared, relative; the "
    "default; 1%) or kl (of classes).",
)
@click.option(
    "--max-latency",
    metavar="AMOUNT",
    help="Measure times in turn, and exit with 1 if a run of a model takes longer: 75% of the first's, or 12ms.",
)
@place
@sizes
@shared.force
@reporting
@shared.conversation
@request(EvaluateArgs)
def evaluate(console: Console, args: EvaluateArgs) -> None:
    """Judge MODELS on data: by labels, and by how far they agree with the first.

    Without labels, only the agreement is measured. Every model sees the same inputs.
    """
    args.check()
    from onnxprune.pipelines.evaluate import evaluate_models
    from onnxprune.pipelines.gates import failed_gates
    from onnxprune.report import data, evaluation
    from onnxprune.sparsity import measured_speed

    wanted, gates, place, speeds = args.wanted, args.gates, args.place.settled(args.sizes.numbers), []
    if wanted.evaluation is not None:
        wanted.evaluation.check()
    console.progress("loading")
    models = [args.sizes.load(name) for name in args.models]
    found = evaluate_models(models, wanted, progress=console.progress)
    if gates.latency is not None:
        console.progress("timing")
        speeds = [measured_speed(models[0], other, place, seconds=SECONDS) for other in models[1:]]
    document = data.header("evaluation") | evaluation.evaluation_data(found, args.models, speeds)
    files = {f"model {n}": name for n, name in enumerate(args.models, 1)}
    title = f"judgement of {', '.join(map(paths.shown, args.models))}"
    args.told.tell(console, Account(title, document, evaluation.evaluation_lines(found, args.models, speeds), files))
    if failed := failed_gates(found, args.models, gates, speeds):
        raise GoalMissed("; ".join(failed), hint="remove less, or repair with --data" if not speeds else "")
