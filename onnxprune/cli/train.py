"""`onnxprune train`: train a model by gradient steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import paths
from onnxprune.cli.kept_training import KeptTraining
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.execution import Where, place, workers
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.options.training import Learning, learning, resume
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.recovery import Training


# What `--help` shows.
USUAL = ("--output", "--data", "--teacher", "--labels", "--steps", "--rate", "--batch", "--resume")


@dataclass(frozen=True)
class TrainArgs:
    """What `train` is asked for."""

    model: str
    output: str
    data: Data
    sizes: Sizes
    teacher: str | None
    labels: str | None
    learning: Learning
    place: Where
    workers: Any
    keep_zeros: bool
    resume: bool
    force: bool
    told: Reporting

    @property
    def kept(self) -> KeptTraining:
        """Where the run is kept until it is done."""
        return KeptTraining(self.output, self.resume)

    @property
    def may_replace(self) -> bool:
        """Whether existing files may be overwritten: that of an interrupted run may."""
        return self.force or self.kept.goes_on

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        if self.data.source is None:
            raise UsageError("no data: --data SOURCE is missing", hint="add --data FILE, inputs of the model")
        paths.check_one_pipe(self.model, self.teacher or "")
        inputs = [self.model, *([self.teacher] if self.teacher else [])]
        paths.check_one_result(self.output, as_json=self.told.as_json)
        paths.check_target(self.output, inputs=inputs, force=self.may_replace)
        self.told.check(self.output, inputs=inputs, force=self.may_replace)
        self.kept.check(inputs=inputs, force=self.force)


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Where the model goes; - is standard output.")
@data
@click.option("--teacher", type=FILE, help="The model whose outputs are learned: the original. No label is used.")
@click.option(
    "--labels",
    metavar="KEY",
    help="Learn labels: the name of their array in --data; folder, for pictures in a folder for each class; or a "
    "column of a table, FILE.csv:COLUMN or FILE.jsonl:COLUMN.",
)
@learning
@place
@workers(1)
@click.option("--keep-zeros", is_flag=True, help="Elements of weights that are zero stay zero.")
@sizes
@resume
@shared.force
@reporting
@shared.conversation
@request(TrainArgs)
def train(console: Console, args: TrainArgs) -> None:
    """Train MODEL by gradient steps, with ONNX Runtime alone.

    With --teacher it learns the outputs of another model on unlabelled inputs, with --labels what the data
    says. The weights that are best on a tenth of the samples, which are not trained on, are written; these are
    never worse there than those of MODEL. Statistics of BatchNormalization stay as they are.
    """
    args.check()
    console.progress("loading")
    from onnxprune.model import save

    source = args.sizes.load(args.model)
    paths.check_output(source, args.output, force=args.may_replace)
    model, done = _trained(console, source, args)
    console.progress("writing")
    save(model, args.output, force=args.may_replace)
    args.kept.remove()
    _report(console, (source, model), done, args)


def _trained(console: Console, source: Model, args: TrainArgs) -> tuple[Model, Training]:
    from onnxprune.pipelines.train import TrainingData, learn, zero_masks

    teacher = None if args.teacher is None else paths.load(args.teacher, args.sizes.shapes)
    options = args.learning.settled(args.kept, args.place, args.workers)
    assert options is not None
    return learn(
        source,
        TrainingData(args.data.source, args.data.samples, args.sizes.numbers, labels=args.labels, teacher=teacher),
        options,
        masks=zero_masks(source) if args.keep_zeros else None,
        progress=console.progress,
    )


def _report(console: Console, models: tuple[Model, Model], done: Training, args: TrainArgs) -> None:
    from onnxprune.report import data as plain
    from onnxprune.report import text, training

    title, files = paths.arrow(args.model, args.output), {"model": args.model, "output": args.output}
    document = plain.header("training") | files | training.training_data(done)
    lines = [title, "", *(text.entry(*said) for said in training.training_entries(done))]
    read = {"teacher": args.teacher} | files
    args.told.tell(console, Account(title, document, lines, read, models=models, sizes=args.sizes.numbers))
