"""The recipe that reaches a goal with the best model, found among all verbs within a given time."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxprune.allocation import KINDS
from onnxprune.allocation.amount import read_amount
from onnxprune.calibration import is_random
from onnxprune.errors import GoalMissed, OnnxPruneError, UsageError
from onnxprune.model import Model, file_size, load
from onnxprune.pipelines.auto_goal import AutoGoal
from onnxprune.pipelines.auto_kept import KeptTrials, model_file
from onnxprune.pipelines.auto_recipes import VerbStep, fixed_recipes, turned_recipes
from onnxprune.pipelines.auto_rungs import Halving, TimeLeft
from onnxprune.pipelines.auto_steps import facts_of
from onnxprune.pipelines.auto_trials import AutoContext, AutoTrial, prepare_auto
from onnxprune.pipelines.compress import compressed
from onnxprune.pipelines.evaluate import EvaluationData
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.progress import Progress
from onnxprune.runtime import Agreement, blas_threads
from onnxprune.runtime import workers as jobs
from onnxprune.runtime.bench import Place
from onnxprune.shown import Shown
from onnxprune.sparsity import Speed

logger = logging.getLogger(__name__)
# The last measurements take so many times what measuring the original does.
LAST = 1.5


@dataclass(frozen=True)
class AutoOptions:
    """What a person may ask `auto` for.

    Attributes:
        budgets: kind of cost -> what the model may have, as "50%" or "2M"; one at most.
        floor: what the model must keep; None for as much as can be.
        smallest: the kind of cost that is made as small as it goes, where there is no budget.
        seconds: time that the search takes.
        wanted: what models are judged by: labels in the data, or the user's own measure.
        samples: how many samples to use; a quarter of them judges.
        sizes: numbers for symbolic dims.
        place: where times are measured.
        folder: where trials are kept, and found again.
        workers: where trials run, as in `workers.stream`.
    """

    budgets: Mapping[str, Any] = field(default_factory=dict)
    floor: QualityConstraint | None = None
    smallest: str = "size"
    seconds: float = 1200.0
    wanted: EvaluationData | None = None
    samples: int = 256
    sizes: Mapping[str, int] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    folder: Path = Path()
    workers: Any = 1

    def __post_init__(self) -> None:
        given = {kind: amount for kind, amount in self.budgets.items() if amount is not None}
        if len(given) > 1:
            raise UsageError(f"{', '.join(given)}: one budget says what is to be small", hint="leave the others out")
        if not given and self.floor is None:
            raise UsageError(
                "nothing says what is to be reached",
                hint="give a budget (--size 50%, --latency, --macs, --params), or --max-drop or --min-sqnr",
            )
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise UsageError(f"{self.seconds:g} seconds are no time", hint="write --time 20m")
        amounts = {kind: read_amount(kind, KINDS[kind].unit, amount) for kind, amount in given.items()}
        object.__setattr__(self, "budgets", amounts)

    @property
    def cost(self) -> str:
        """The kind of cost that is to be small."""
        return next(iter(self.budgets), self.smallest)


@dataclass(frozen=True, repr=False)
class AutoOutcome(Shown):
    """What a search gave.

    Attributes:
        model: the best model.
        original: the model that it was made of.
        chosen: its trial.
        goal: what was to be reached.
        trials: all trials, in their order.
        whole: the original's amounts, by kind of cost, and its own value.
        judged: how the outputs of the model agree with the original's on held-out samples; None without data.
        speed: the time of a run before and after.
        unknown: what could not be told, and why.
        resumed: trials that had been made before.
        interrupted: whether the search was ended before its time.
        seconds: that it took.
        folder: where the models of the trials lie, by their keys.
    """

    model: Model
    original: Model
    chosen: AutoTrial
    goal: AutoGoal
    trials: Sequence[AutoTrial]
    whole: Mapping[str, float]
    judged: Agreement | None
    speed: Speed
    unknown: Sequence[str]
    resumed: int
    interrupted: bool
    seconds: float
    folder: Path

    @property
    def made(self) -> list[AutoTrial]:
        """The trials with a model."""
        return [trial for trial in self.trials if not trial.problem]

    @property
    def front(self) -> list[AutoTrial]:
        """The trials that no other beats in both cost and quality, the smallest first."""
        return self.goal.front(self.made)

    def model_of(self, trial: AutoTrial) -> Model:
        """The model of a trial."""
        return load(str(model_file(self.folder, trial)))


@blas_threads()
def auto_search(model: Model, data: Any, options: AutoOptions, *, progress: Progress | None = None) -> AutoOutcome:
    """Search for the recipe that reaches a goal with the best model.

    Args:
        model: the model.
        data: unlabelled calibration inputs (see `calibration.read`), with labels where these judge; None for none.
        options: the goal, the time, and where trials run and are kept.
        progress: is told about every trial.

    Returns:
        The best that was found.

    Raises:
        UsageError: the goal has nothing to be measured by, or there are too few samples.
        GoalMissed: no trial was finished in time, or none keeps what it must.
    """
    left, progress = TimeLeft(options.seconds), progress or logger.info
    context = _context(model, data, options, progress)
    begun = left.left
    whole, metrics = _whole(context, progress)
    last = LAST * (begun - left.left)
    goal = _goal(context, options, whole, metrics)
    kept = KeptTrials(options.folder, context)
    samples, width = sum(map(_batch, context.fitting)), jobs.width(options.workers)
    search = Halving(goal, TimeLeft(max(left.left - last, left.left / 2)), samples, width)
    interrupted = _searched(search, kept, context, options.workers, progress)
    chosen = _best(search.trials, goal, options.seconds)
    progress("measuring the best")
    found = load(str(kept.path(chosen)))
    return AutoOutcome(
        model=found,
        original=model,
        chosen=chosen,
        goal=goal,
        trials=tuple(search.trials),
        whole=whole,
        judged=context.scores(found, _ignored).agreement,
        speed=context.speed(found),
        unknown=_unknown(context, goal),
        resumed=kept.resumed,
        interrupted=interrupted,
        seconds=options.seconds - left.left,
        folder=options.folder,
    )


def _context(model: Model, data: Any, options: AutoOptions, progress: Progress) -> AutoContext:
    """Read the data, and take out of the model what its function does not need."""
    if is_random(data):
        raise UsageError("random inputs tell nothing of how good a model is", hint="give --data real inputs, or none")
    wanted = options.wanted or EvaluationData(data=())
    if wanted.evaluation is not None:
        wanted.evaluation.check()
    inputs = RunInputs(data, options.samples, options.sizes)
    also = [] if data is None else wanted.label_source(model, wanted.output_of(model))
    progress("reading the data")
    fitting, judging = inputs.parted(model, also=also)
    fitting = [{name: array for name, array in run.items() if name != wanted.labels} for run in fitting]
    start = model
    progress("compressing")
    try:
        tidied = compressed(model, RunInputs(fitting or None, options.samples, options.sizes))
        if tidied.verdict is not None and tidied.verdict.ok and file_size(tidied.model) < file_size(model):
            start = tidied.model
    except OnnxPruneError as error:
        logger.info("compress: %s", error.message)
    return AutoContext(
        original=PicklableModel(model),
        start=PicklableModel(start),
        prefix=() if start is model else (VerbStep("compress"),),
        fitting=fitting,
        judging=judging,
        wanted=replace(wanted, data=()),  # what it holds is read
        cost=options.cost,
        place=options.place,
        sizes=options.sizes,
    )


def _ignored(stage: str) -> None:
    """Be told nothing."""


def _batch(run: Mapping[str, Any]) -> int:
    """Samples of a run."""
    return max((len(array) for array in run.values() if array.ndim), default=1)


def _whole(context: AutoContext, progress: Progress) -> tuple[dict[str, float], set[str]]:
    """The original's amounts, and its own value; what trials are measured by."""
    progress("measuring the original")
    model = context.original.model
    scores = context.scores(model, progress)
    amounts = context.amounts | {"latency": context.speed(model).before}
    return amounts | {n: v for n, v in scores.values.items() if n == "value"}, set(scores.values)


def _goal(context: AutoContext, options: AutoOptions, whole: Mapping[str, float], metrics: Set[str]) -> AutoGoal:
    """What is to be reached, as shares of the original."""
    floor, most = options.floor, None
    if floor is not None and floor.metric not in metrics:
        if floor.metric == "value":
            raise UsageError("--max-drop needs a measure", hint="add --labels KEY, or --eval WHAT")
        raise UsageError("there are no inputs to compare outputs on", hint="give unlabelled inputs with --data")
    known = ("value", *([floor.metric] if floor else ()), "top1", "sqnr")
    metric = next((name for name in known if name in metrics), "")
    for kind, amount in options.budgets.items():
        most = amount.limit(whole[kind]) / whole[kind]
    return AutoGoal(options.cost, most, floor, whole, metric)


def _searched(search: Halving, kept: KeptTrials, context: AutoContext, workers: Any, progress: Progress) -> bool:
    """Try recipes; whether that was interrupted when something had been made."""
    facts = facts_of(context.start.model, context.sizes, data=bool(context.fitting))
    try:
        with jobs.crew(jobs.Work(prepare_auto, context), workers) as crew:
            perform = kept.performing(crew, search, progress)
            search.run(perform, fixed_recipes(context.cost, facts), turned_recipes(context.cost, facts))
    except KeyboardInterrupt:
        if all(trial.problem for trial in search.trials):
            raise
        return True
    return False


def _best(trials: Sequence[AutoTrial], goal: AutoGoal, seconds: float) -> AutoTrial:
    """The best trial.

    Raises:
        GoalMissed: there is none, or none keeps what it must.
    """
    made = [trial for trial in trials if not trial.problem]
    if not made:
        why = f": {trials[0].recipe}: {trials[0].problem}" if trials else ""
        raise GoalMissed(f"no model was made in {seconds:g} seconds{why}", hint="give more --time, or fewer --samples")
    best = min(made, key=goal.rank)
    reached = goal.fits(best) if goal.most is not None else goal.cost_of(best) < 1
    if goal.floor is not None and not (reached and goal.keeps(best)):
        raise GoalMissed(
            f"none of {len(made)} models is good enough"
            + ("" if goal.most is None else f" with {100 * goal.most:.3g} % of the {goal.cost}"),
            hint="allow more, or give more --time or --samples",
        )
    return best


def _unknown(context: AutoContext, goal: AutoGoal) -> list[str]:
    """What could not be told."""
    found = []
    if not goal.metric:
        found.append("how good any model is: without --data, --eval or labels, what loses least in general is taken")
    if not context.fitting:
        found.append("what repair and training would give: both need --data")
    return found
