"""`onnxprune run`: carry out the steps of a recipe, one after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.cli.work_folder import JOURNAL, WorkFolder

if TYPE_CHECKING:
    from onnxprune.cli.steps import RecipeStep
    from onnxprune.model import Model
    from onnxprune.pipelines.recipe_result import RecipeResult, StepReport

# Options of `run` that every step is given.
PASSED_ON = ("data", "samples", "preprocess", "tokenizer", "provider", "threads")


@dataclass(frozen=True)
class RunArgs(shared.WrittenModel):
    """What `run` is asked for."""

    recipe: str
    sizes: Sizes
    data: Data
    place: Where
    time: bool
    accept_damage: bool
    resume: bool
    keep_steps: bool

    @property
    def folder(self) -> WorkFolder:
        """Where finished steps are kept until all are done."""
        return WorkFolder.beside(self.written, "step", resume=self.resume, keep=self.keep_steps)

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        paths.check_one_pipe(self.recipe, self.model)
        self.check_written("small.onnx", inputs=[self.recipe])
        self.folder.check(force=self.force)


@click.command(cls=Titled)
@check_requirements
@click.argument("recipe", type=FILE)
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the last model goes; - is standard output.")
@data
@sizes
@click.option("--time/--no-time", default=True, help="Time the last model against MODEL, by default.")
@place
@shared.accept_damage
@click.option("--resume", is_flag=True, help="Go on with an interrupted run: its steps lie beside the output.")
@click.option("--keep-steps", is_flag=True, help="Leave the model of every step in the folder OUTPUT.steps.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(RunArgs)
def run(console: Console, args: RunArgs) -> None:
    """Carry out the steps of RECIPE on MODEL, one after the other.

    RECIPE is a TOML file with a table [[step]] for each: run = "prune" names the command, what else stands in it are
    options of the command as on its command line. --data and the like are given to all steps that take them; a step
    that trains, and says nothing else, learns the outputs of MODEL. Every step proves what it makes, and the last
    model is compared with MODEL.
    """
    args.check()
    console.progress("loading")
    source = args.sizes.load(args.model)
    with args.folder.opened() as folder:
        first = _first(source, args, folder)
        result, final = _carried_out(console, source, args, first=first, folder=folder)
        if args.written is not None:
            from onnxprune.model import save

            console.progress("writing")
            save(final, args.written, force=args.force)
    with missed_budgets.damage_last(console, result.judged, accepted=args.accept_damage):
        _report(console, (source, final), result, args)


def _first(source: Model, args: RunArgs, folder: Path) -> str:
    """The file with the model that the recipe begins with."""
    if args.model != paths.PIPE and not args.sizes.shapes:
        return args.model
    from onnxprune.model import save

    target = folder / "0-original.onnx"
    save(source, target, force=True)
    return str(target)


def _carried_out(
    console: Console, source: Model, args: RunArgs, *, first: str, folder: Path
) -> tuple[RecipeResult, Model]:
    """Carry out all steps that are not finished, and judge the last model."""
    from onnxprune.cli.steps import check_step, steps_of
    from onnxprune.model import load
    from onnxprune.pipelines.recipe_result import RecipeResult, StepReport, agreement_of, cost_of
    from onnxprune.pipelines.run_inputs import RunInputs
    from onnxprune.runtime import Journal
    from onnxprune.sparsity import measured_speed

    steps = steps_of(args.recipe, _common(args), teacher=first)
    for step in steps:
        check_step(step, console, recipe=args.recipe)
    journal = Journal(folder / JOURNAL)
    results, key, current, resumed = [StepReport("", cost_of(source, args.sizes.numbers))], source.digest, first, 0
    for step in steps:
        key, target = step.key(key), folder / step.file
        found = StepReport.from_json(journal.get(key)) if target.exists() else None
        resumed += found is not None
        if found is None:
            found = _step(console, step, args, source=current, target=target)
            journal.put(key, found.as_json(), {"step": step.number, "verb": step.verb})
        results.append(found)
        current = str(target)
    final = load(current)
    console.progress("comparing")
    inputs = RunInputs(args.data.source, args.data.samples, args.sizes.numbers)
    speed = measured_speed(source, final, args.place.settled(args.sizes.numbers)) if args.time else None
    return RecipeResult(results, resumed, agreement_of(source, final, inputs), speed), final


def _step(console: Console, step: RecipeStep, args: RunArgs, *, source: str, target: Path) -> StepReport:
    from onnxprune.cli.steps import carry_out
    from onnxprune.model import load
    from onnxprune.pipelines.recipe_result import StepReport, cost_of

    begun = time.monotonic()
    report = carry_out(step, console, source=source, target=target, recipe=args.recipe)
    seconds = time.monotonic() - begun
    return StepReport(step.verb, cost_of(load(str(target)), args.sizes.numbers), seconds, report)


def _common(args: RunArgs) -> dict[str, Any]:
    """Options that every step is given, as click's `default_map` has them."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    given = {n: context.params[n] for n in PASSED_ON if context.get_parameter_source(n) is not default}
    numbers = {"sizes": [f"{name}={number}" for name, number in args.sizes.numbers.items()]}
    return given | {name: value for name, value in numbers.items() if value}


def _report(console: Console, models: tuple[Model, Model], result: RecipeResult, args: RunArgs) -> None:
    from onnxprune.report import data as plain
    from onnxprune.report import recipe as report

    title = paths.arrow(args.model, args.written or "(not written)")
    files = {"recipe": args.recipe, "model": args.model, "output": args.written}
    document, lines = plain.header("run") | files | report.recipe_data(result), report.recipe_lines(result)
    told = Account(title, document, [title, "", *lines], files, models=models, sizes=args.sizes.numbers)
    args.told.tell(console, told)
