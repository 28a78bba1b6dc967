"""`onnxprune evaluate`: judge models on data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, evaluation, labelled, test_data
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed, UsageError

if TYPE_CHECKING:
    from onnxprune.pipelines.evaluate import Evaluated, EvaluationData


@dataclass(frozen=True)
class EvaluateArgs:
    """What `evaluate` is asked for."""

    models: tuple[str, ...]
    data: Data
    labels: str | None
    metrics: str | None
    judged: str | None
    evaluate: str | None
    max_drop: str | None
    sizes: Sizes
    force: bool
    told: Reporting

    @property
    def wanted(self) -> EvaluationData:
        """What the models are judged by."""
        from onnxprune.pipelines import Evaluation
        from onnxprune.pipelines.evaluate import EvaluationData

        return EvaluationData(
            data=self.data.source,
            labels=self.labels,
            metrics=[name.strip() for name in self.metrics.split(",")] if self.metrics else (),
            output=self.judged,
            samples=self.data.samples,
            sizes=self.sizes.numbers,
            evaluation=None if self.evaluate is None else Evaluation(self.evaluate),
        )


@click.command(cls=Titled)
@click.argument("models", nargs=-1, required=True, type=FILE)
@test_data
@labelled
@evaluation
@click.option(
    "--max-drop",
    metavar="AMOUNT",
    help="Exit with 1 if a model is worse than the first by more, in the first metric: 1% of the first's, or a number.",
)
@sizes
@shared.force
@reporting
@shared.conversation
@request(EvaluateArgs)
def evaluate(console: Console, args: EvaluateArgs) -> None:
    """Judge MODELS on data: by labels, and by how far they agree with the first.

    Without labels, only the agreement is measured. Every model sees the same inputs.
    """
    paths.check_one_pipe(*args.models)
    args.told.check(inputs=args.models, force=args.force)
    if args.max_drop is not None and len(args.models) < 2:
        raise UsageError("--max-drop compares models with the first, and there is one", hint="name the original first")
    from onnxprune.pipelines.evaluate import evaluate_models
    from onnxprune.pipelines.search_targets import amount
    from onnxprune.report import data, evaluation

    wanted, allowed = args.wanted, None if args.max_drop is None else amount("value", args.max_drop)
    if wanted.evaluation is not None:
        wanted.evaluation.check()
    console.progress("loading")
    models = [args.sizes.load(name) for name in args.models]
    found = evaluate_models(models, wanted, progress=console.progress)
    document = data.header("evaluation") | evaluation.evaluation_data(found, args.models)
    files = {f"model {n}": name for n, name in enumerate(args.models, 1)}
    title = f"judgement of {', '.join(map(paths.shown, args.models))}"
    args.told.tell(console, Account(title, document, evaluation.evaluation_lines(found, args.models), files))
    if allowed is not None:
        _check_drop(found, args, *allowed)


def _check_drop(found: Evaluated, args: EvaluateArgs, limit: float, is_share: bool) -> None:
    """Hold all models against the first.

    Raises:
        GoalMissed: one is worse by more than is allowed.
        UsageError: there is nothing to compare.
    """
    first, *others = (model.metrics for model in found.models)
    if not first:
        raise UsageError("--max-drop needs a measure", hint="add --labels KEY, or --eval WHAT")
    metric = next(iter(first))
    rises = all(known.rises for known in found.metrics if known.name == metric)
    allowed = limit * (abs(first[metric]) if is_share else 1.0)
    for name, values in zip(args.models[1:], others, strict=True):
        drop = (first[metric] - values[metric]) * (1 if rises else -1)
        if not drop <= allowed:
            raise GoalMissed(
                f"{name}: {metric} is {values[metric]:.4g}, the first's {first[metric]:.4g}: more than "
                f"{args.max_drop} worse",
                hint="remove less, or repair with --data",
            )
