"""The smallest model that is still good enough: a search over budgets with recovery in the loop."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxprune.allocation import Options
from onnxprune.allocation.timed import needs_tables
from onnxprune.calibration import Run, digest
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model
from onnxprune.pipelines import iterative, prune
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.pipelines.prune import Outcome
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import RISING
from onnxprune.pipelines.search_trials import (
    SearchConfig,
    Trial,
    TrialContext,
    measure_values,
    prepare_trial,
    with_budget,
)
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.progress import WorkPart
from onnxprune.rewriting import Removal
from onnxprune.runtime import Journal, blas_threads, key_of
from onnxprune.runtime import workers as jobs
from onnxprune.shown import Shown
from onnxprune.tracing import trace
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

# The search ends where the smallest good budget is known to this share of the original.
FINE = 0.005
# Part of every key of a trial that is kept: raise it when the same trial would be another.
TRIAL = 1


@dataclass(frozen=True, repr=False)
class Found(Shown):
    """The result of a search.

    Attributes:
        outcome: the smallest model that is good enough.
        values: its values, measured again.
        trials: every model that was tried, in the order in which they were.
        whole: the original's own value under an evaluation.
        settings: what was asked for.
        known: how many of the trials were found in the cache.
    """

    outcome: Outcome
    values: Mapping[str, float]
    trials: tuple[Trial, ...]
    whole: Mapping[str, float]
    settings: SearchConfig
    known: int = 0

    @property
    def met(self) -> bool:
        """Whether the model that was found, with its proof and all, is good enough."""
        return all(t.holds(self.values, self.whole) for t in self.settings.targets)

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other beats in both the cost and the first target's metric, smallest first."""
        metric, kind = self.settings.targets[0].metric, self.settings.cost
        best, found = math.inf, []
        for trial in sorted(self.trials, key=lambda t: (getattr(t, kind), _badness(t, metric))):
            if _badness(trial, metric) < best:
                best = _badness(trial, metric)
                found.append(trial)
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """The trace of the search as plain values, without the plans."""
        front = {id(t) for t in self.front}
        trials = [{k: v for k, v in asdict(t).items() if k != "plan"} | {"pareto": id(t) in front} for t in self.trials]
        targets = [asdict(t) | {"bound": t.bound(self.whole)} for t in self.settings.targets]
        found = {"whole": dict(self.whole), "values": dict(self.values), "met": self.met}
        return {"targets": targets, "cost": self.settings.cost, **found, "known": self.known, "trials": trials}


def _badness(trial: Trial, metric: str) -> float:
    return -trial.values[metric] if metric in RISING else trial.values[metric]


@blas_threads()
def search(
    model: Model,
    options: Options,
    settings: SearchConfig,
    data: Any = None,
    *,
    workers: Any = 1,
    cache: Any = None,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """The smallest model that keeps all targets.

    The budget is halved between the smallest that was good enough and the largest that was not; with several workers
    it is cut into as many parts at once. That assumes that a smaller budget is not better; the trials tell.

    Args:
        model: the model.
        options: what to prune, and how budgets are shared out; the one that is searched over is not among them.
        settings: the targets, and how to search.
        data: unlabelled calibration inputs (see `calibration.read`). A quarter of them is held out: it measures the
            agreement with the original, and neither scores nor recovery see it.
        workers: where trials run, as in `jobs.stream`.
        cache: path of a file that keeps every finished trial, so that an interrupted search goes on where it was.
        progress: is told about every trial.

    Raises:
        UsageError: a target has nothing to be measured by.
        GoalMissed: no model that was tried is good enough.
    """
    progress = progress or logger.info
    if settings.evaluation is not None:
        settings.evaluation.check()
    fitting, judging = RunInputs(data, settings.samples, settings.sizes).parted(model)
    _check(options, settings, judging)
    options = options.settled(data=bool(fitting))
    progress("tracing")
    groups = trace(model, **options.policy, sizes=settings.sizes)
    progress("scoring")
    budgeted = with_budget(options, settings, 1.0)  # how scores are made depends on there being one
    scores = iterative.scored(groups, budgeted, fitting, settings.recovery, progress=progress)[0]
    progress("measuring the original")
    kept = _Kept(Journal(cache), _about(model, options, settings, scores, [fitting, judging]))
    whole = kept.whole(settings.evaluation, model) if settings.evaluation else {}
    setting = TrialContext(
        model=PicklableModel(model),
        options=options,
        settings=settings,
        scores=scores,
        fitting=fitting,
        judging=judging,
        whole=whole,
    )
    trials, known = _searched(setting, kept, workers, progress)
    outcome = _pruned(setting, _smallest(trials, settings.cost).share, progress)
    removal = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    values = measure_values(removal, outcome.model, setting)
    return Found(outcome=outcome, values=values, trials=tuple(trials), whole=whole, settings=settings, known=known)


def _pruned(setting: TrialContext, share: float, progress: Callable[[str], None]) -> Outcome:
    """The model under the budget that was found, proven and timed as the settings say."""
    settings = setting.settings
    progress(f"making the model of {share:.1%} of the {settings.cost}")
    outcome = prune.run(
        setting.model.model,
        with_budget(setting.options, settings, share),
        verify=settings.verify,
        sizes=settings.sizes or None,
        data=setting.fitting or None,
        samples=settings.samples,
        recovery=settings.recovery,
        place=settings.place,
        progress=progress,
    )
    # What was searched over is no budget that anybody gave.
    return replace(outcome, goals=tuple(goal for goal in outcome.goals if goal.kind != settings.cost))


def _check(options: Options, settings: SearchConfig, judging: Sequence[Run]) -> None:
    for target in settings.targets:
        if target.metric == "value" and settings.evaluation is None:
            raise UsageError(
                "--max-drop is a drop of your own measure, and no measure is given", hint="give it with --eval"
            )
        if target.metric != "value" and not judging:
            raise UsageError("there are no inputs to compare outputs on", hint="give unlabelled inputs with --data")
    if needs_tables(options):
        raise UsageError(
            "a search for a target measures no time: it takes neither --latency nor --round-to auto",
            hint="search by another cost, with --round-to 8; --time measures what is found",
        )
    if options.rotate:
        raise UsageError("a search for a target rotates nothing", hint="leave out --rotate")
    if options.drop:
        raise UsageError("a search for a target drops no blocks", hint="leave out --drop")
    if options.steps > 1:
        raise UsageError("a search for a target removes units in one step", hint="leave out --steps")
    if not settings.targets:
        raise UsageError("there is no target to search for")
    if getattr(options, settings.cost) is not None or options.ratio is not None:
        given = "--ratio" if options.ratio is not None else f"--{settings.cost}"
        raise UsageError(
            f"{given} and a target cannot both decide how many units are removed",
            hint=f"leave out {given}: a search finds the smallest model by itself; or leave out the target",
        )


def _smallest(trials: Sequence[Trial], kind: str) -> Trial:
    """The smallest model that is good enough.

    Raises:
        GoalMissed: none is.
    """
    good = [t for t in trials if t.good]
    if good:
        return min(good, key=lambda t: (getattr(t, kind), -t.share))
    nearest = max(trials, key=lambda t: t.share)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in nearest.values.items())
    raise GoalMissed(
        f"none of {len(trials)} models is good enough; at {nearest.share:.1%} of the {kind}: {shown}",
        hint="allow more, give more data for the repair, or try another criterion",
    )


# --- the search ------------------------------------------------------------------------------------------------


def _searched(
    setting: TrialContext, kept: _Kept, workers: Any, progress: Callable[[str], None]
) -> tuple[list[Trial], int]:
    """Every trial, those at the same time by rising budget, and how many of them were kept from before."""
    settings, width = setting.settings, jobs.width(workers)
    trials, known = list[Trial](), 0
    bad, good = 0.0, 1.0
    while len(trials) < settings.trials and good - bad > FINE:
        count = min(width, settings.trials - len(trials))
        shares = [bad + (good - bad) * (i + 1) / (count + 1) for i in range(count)]
        found: dict[int, Trial] = {}
        for index, trial, is_new in kept.stream(setting, shares, workers):
            found[index] = trial
            known += not is_new
            said = ("" if trial.good else "not ") + "good enough" + ("" if is_new else ", as is known")
            more = f": {trial.share:.1%} is {said}"
            progress(WorkPart.of("trial", len(trials) + len(found), settings.trials, more, finished=True))
        tried = [found[i] for i in sorted(found)]
        trials += tried
        # What lies between a budget and what was reached under it is the same model.
        good = min([good, *(t.reached for t in tried if t.good)])
        bad = max([bad, *(max(t.share, t.reached) for t in tried if not t.good and t.share < good)])
        if any(t.good and t.reached > t.share for t in tried):
            break
    return trials, known


@dataclass(frozen=True)
class _Kept:
    """Trials that are kept as soon as they are finished, by what they depend on: no target is part of that."""

    journal: Journal
    about: Mapping[str, Any]

    def whole(self, evaluation: Evaluation, model: Model) -> dict[str, float]:
        """The original's value."""
        key = key_of(**self.about, share=None)
        found = self.journal.get(key)
        if found is None:
            found = {"value": evaluation.of(model)}
            self.journal.put(key, found, {"share": None})
        return dict(found)

    def stream(self, setting: TrialContext, shares: Sequence[float], workers: Any) -> Iterator[tuple[int, Trial, bool]]:
        """(index, trial, whether it was made now), first those that were kept."""
        keys = [key_of(**self.about, share=share) for share in shares]
        kept = {index: found for index, key in enumerate(keys) if (found := self.journal.get(key)) is not None}
        for index, found in kept.items():
            yield index, Trial(**found, good=setting.holds(found["values"])), False
        todo = [index for index in range(len(shares)) if index not in kept]
        for place, trial in jobs.stream(jobs.Work(prepare_trial, setting), [shares[i] for i in todo], workers):
            index = todo[place]
            result = {name: value for name, value in asdict(trial).items() if name != "good"}
            self.journal.put(keys[index], result, {})
            yield index, trial, True


def _about(
    model: Model, options: Options, settings: SearchConfig, scores: Array, runs: Sequence[Sequence[Run]]
) -> dict[str, Any]:
    """What all trials depend on."""
    return {
        "model": model.digest,
        "data": [digest(part) for part in runs],
        "options": options.as_json() | {"rows": {name: list(map(int, ids)) for name, ids in options.rows.items()}},
        # A function of one's own has no name that says what it does.
        "scores": hashlib.sha256(scores.tobytes()).hexdigest() if callable(options.criterion) else "",
        "sizes": dict(settings.sizes),
        "evaluation": settings.evaluation.digest if settings.evaluation else "",
        "recovery": asdict(replace(settings.recovery, tune=None)) | {"tune": repr(settings.recovery.tune)},
        "cost": settings.cost,
        "trial": TRIAL,
    }
