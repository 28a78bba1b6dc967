"""`onnxprune auto`: choose among all verbs what makes the best model, within a given time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune import names
from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, Judging, data, judging
from onnxprune.cli.options.execution import Where, place, workers
from onnxprune.cli.options.group import AMOUNT, DATA, SEARCH, Titled, request, titled
from onnxprune.cli.options.reporting import Account, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE, FOLDER, Duration
from onnxprune.cli.work_folder import WorkFolder
from onnxprune.errors import GoalMissed, UsageError

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.auto_search import AutoOptions, AutoOutcome
    from onnxprune.pipelines.evaluate import EvaluationData

# What `--help` shows.
USUAL = ("--output", "--size", "--latency", "--max-drop", "--min-sqnr", "--time", "--data", "--labels")


@dataclass(frozen=True)
class AutoArgs(shared.WrittenModel):
    """What `auto` is asked for."""

    size: str | None
    latency: str | None
    macs: str | None
    params: str | None
    max_drop: str | None
    min_sqnr: str | None
    smallest: str
    seconds: float
    judging: Judging
    front: str | None
    data: Data
    sizes: Sizes
    place: Where
    workers: Any
    resume: bool
    keep_trials: bool
    accept_damage: bool

    @property
    def may_replace(self) -> bool:
        """Whether existing files may be overwritten: those of an interrupted run may."""
        return self.force or self.resume

    @property
    def folder(self) -> WorkFolder:
        """Where trials are kept until the model is written."""
        return WorkFolder.beside(self.written, "trial", resume=self.resume, keep=self.keep_trials)

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_written("small.onnx")
        self.folder.check(force=self.force)
        if self.front is not None:
            paths.check_folder("--front", self.front, force=self.may_replace)
        self.options(Path(), self.seconds)

    def options(self, folder: Path, seconds: float) -> AutoOptions:
        """The same as the search takes it, with the time that is left for it."""
        from onnxprune.pipelines.auto_search import AutoOptions
        from onnxprune.pipelines.search_targets import quality_constraint

        return AutoOptions(
            budgets={kind: getattr(self, kind) for kind in names.AUTO_BUDGETS},
            floor=quality_constraint(self.max_drop, self.min_sqnr),
            smallest=self.smallest,
            seconds=seconds,
            wanted=self._wanted(),
            samples=self.data.samples,
            sizes=self.sizes.numbers,
            place=self.place.settled(self.sizes.numbers),
            folder=folder,
            workers=self.workers,
        )

    def _wanted(self) -> EvaluationData | None:
        """What models are judged by, beside their agreement with MODEL."""
        by = self.judging
        if by.labels is not None and self.data.source is None:
            raise UsageError("--labels are in the data, and there is none", hint="add --data SOURCE")
        if by.labels is None and by.evaluate is None and by.metrics is None:
            return None
        return by.settled(self.data.source or ())


_BUDGETS = titled(
    AMOUNT,
    *(
        click.option(f"--{kind}", metavar="AMOUNT", help=f"Budget on {names.BUDGETS[kind]}.")
        for kind in names.AUTO_BUDGETS
    ),
    click.option(
        "--max-drop",
        metavar="AMOUNT",
        help="Most that accuracy (--labels) or your own measure (--eval) may drop: 1% of the original's, or a number.",
    ),
    click.option(
        "--min-sqnr", metavar="DB", help="Least signal to noise of the outputs on held-out samples of --data."
    ),
    click.option(
        "--smallest",
        type=click.Choice(names.AUTO_BUDGETS),
        default="size",
        show_default=True,
        help="What is made as small as it goes, where there is no budget.",
    ),
)
_SEARCH = titled(
    SEARCH,
    click.option(
        "--time",
        "seconds",
        metavar="TIME",
        type=Duration(),
        default="20m",
        show_default=True,
        help="How long the search may take: 90s, 20m, 1h30m.",
    ),
    click.option(
        "--front", type=FOLDER, help="Also write every model of the Pareto front, and its recipe, into a folder."
    ),
    click.option("--resume", is_flag=True, help="Go on with an interrupted search: its trials lie beside the output."),
    click.option("--keep-trials", is_flag=True, help="Leave the model of every trial in the folder OUTPUT.trials."),
)


@click.command(cls=Titled, usual=USUAL)
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the best model goes; - is standard output.")
@_BUDGETS
@_SEARCH
@data
@titled(DATA, judging)
@sizes
@place
@workers(1)
@shared.accept_damage
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(AutoArgs)
def auto(console: Console, args: AutoArgs) -> None:
    """Choose among all verbs what makes the best of MODEL, within a given time.

    Pruned, rotated, without blocks, as products, with zeros, in whole numbers, trained, and several of these: recipes
    are tried on few samples, and the best on more. Every step proves what it makes; every model is sized, timed where
    time is limited, and judged on samples of --data that no step sees. The best that holds the budget is written, or
    without a budget the smallest that is good enough.
    """
    begun = time.monotonic()
    args.check()
    from onnxprune.pipelines.auto_search import auto_search

    console.progress("loading")
    source = args.sizes.load(args.model)
    if args.written is not None:
        paths.check_output(source, args.written, force=args.may_replace)
    with args.folder.opened() as folder:
        left = max(args.seconds - (time.monotonic() - begun), args.seconds / 2)
        found = auto_search(source, args.data.source, args.options(folder, left), progress=console.progress)
        _write(console, found, args)
    with missed_budgets.damage_last(console, found.judged, accepted=args.accept_damage):
        _report(console, source, found, args)
        _check_budget(found)


def _write(console: Console, found: AutoOutcome, args: AutoArgs) -> None:
    """Write the model, and those of the front with their recipes."""
    if args.written is None:
        return
    from onnxprune.model import save
    from onnxprune.pipelines.auto_recipes import recipe_text

    console.progress("writing")
    if args.front is not None:
        folder = Path(args.front)
        folder.mkdir(parents=True, exist_ok=True)
        for number, trial in enumerate(found.front, 1):
            name = f"{number:02}-{'-'.join(trial.recipe.replace(',', '').replace('+', '').split())}"
            save(found.model_of(trial), folder / f"{name}.onnx", force=True)
            paths.write_file(recipe_text(trial.steps), str(folder / f"{name}.toml"))
    save(found.model, args.written, force=args.force or args.resume)


def _report(console: Console, source: Model, found: AutoOutcome, args: AutoArgs) -> None:
    from onnxprune.report import auto as report
    from onnxprune.report import data as plain

    title = paths.arrow(args.model, args.written or "(not written)")
    files = {"model": args.model, "output": args.written}
    document = plain.header("auto") | files | report.auto_data(found)
    lines, models = [title, "", *report.auto_lines(found)], (source, found.model)
    args.told.tell(console, Account(title, document, lines, files, models=models, sizes=args.sizes.numbers))
    console.detail(report.failed_lines(found))


def _check_budget(found: AutoOutcome) -> None:
    """Say that the budget was missed, after what comes nearest is written.

    Raises:
        GoalMissed: it was.
    """
    if not found.goal.fits(found.chosen):
        from onnxprune.report import auto as report

        reached = 100 * found.goal.cost_of(found.chosen)
        raise GoalMissed(
            f"no recipe reaches a {report.asked(found)}: the smallest has {reached:.3g} % of the original's",
            hint="allow more, or give more --time; `onnxprune inspect` says what is locked",
        )
