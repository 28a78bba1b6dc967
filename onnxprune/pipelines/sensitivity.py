"""Sensitivity: what it costs the outputs to make each group smaller, one group at a time, without labels."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

from onnxprune import calibration, criteria
from onnxprune.allocation import KINDS, BudgetFitter, Options, select
from onnxprune.calibration import digest
from onnxprune.errors import UsageError
from onnxprune.keywords import CurveKeywords, accepts_synonyms, check_keywords
from onnxprune.model import Model, load
from onnxprune.pipelines import probe
from onnxprune.pipelines.sensitivity_report import METRICS, Curve, Point, Sensitivity
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.progress import Progress, WorkPart, shown
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import plan as plans
from onnxprune.rewriting.plan import Step
from onnxprune.runtime import Journal, blas_threads, key_of
from onnxprune.runtime import workers as jobs
from onnxprune.tracing import Group, Groups, trace
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
# Part of every key: raise it when the same measurement would give another value.
MEASURE = 2


@dataclass(frozen=True)
class SensitivityConfig:
    """How to measure.

    Attributes:
        ratios: shares of a group's units that are removed, each in a measurement of its own.
        samples: how many calibration samples to use.
        sizes: numbers for symbolic dims.
        evaluation: the user's measure, instead of the agreement of outputs.
        recovery: re-fit what is behind a cut before every measurement; None leaves the cut as it is.
        whole: run the whole smaller model instead of its changed part; the values are the same but for rounding.
    """

    ratios: Sequence[float] = RATIOS
    samples: int = 256
    sizes: Mapping[str, int] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    recovery: RecoveryOptions | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.ratios or not all(0 < ratio < 1 for ratio in self.ratios):
            raise UsageError(f"ratios are {list(self.ratios)}, but each must be above 0 and below 1")


@accepts_synonyms(CurveKeywords)
def sensitivity(
    source: Any,
    data: Any = None,
    *,
    ratios: Sequence[float] = RATIOS,
    metric: str = "",
    samples: int = 256,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    evaluate: Any = None,
    recovery: str = "none",
    executor: Any = 1,
    cache: Any = None,
    progress: Progress | bool = False,
    **options: Unpack[CurveKeywords],
) -> Sensitivity:
    """Measure what it costs to cut each group of a model, one group at a time.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        data: unlabelled calibration inputs (see `calibration.read`).
        ratios: shares of a group's units to remove, each measured by itself.
        metric: one of `METRICS`; "error" by default, or "value" where `evaluate` is given.
        samples: how many calibration samples to use.
        shapes: of inputs that the file leaves open, as for `prune`.
        evaluate: your own measure (see `Evaluation`), higher is better, instead of the agreement of outputs.
        recovery: how to re-fit what is behind a cut before it is measured.
        executor: a number of local processes, a `concurrent.futures.Executor`, or a `distributed.Client`.
        cache: path of a file that keeps every finished measurement.
        progress: True shows a bar with the time that is left; a function is told how far it is.
        options: fields of `RecoveryOptions`: criterion, keep, only, exact_only, ...

    Returns:
        A curve of damage for every group.

    Raises:
        UsageError: an option is out of range, or there is no data.
        GoalMissed: there is nothing to prune.

    Example:
        >>> import onnxprune
        >>> data = "models/digits_calibration.npz"
        >>> report = onnxprune.sensitivity("models/digits.onnx", data, ratios=[0.25, 0.5], samples=16)
        >>> quarter, half = (report.value(point) for point in report.curves[0].points)
        >>> 0 < quarter < half
        True
    """
    check_keywords(options, CurveKeywords, "ratios", "metric", "samples", "evaluate", "recovery", "executor")
    settings = SensitivityConfig(
        tuple(ratios),
        samples,
        evaluation=None if evaluate is None else Evaluation(evaluate),
        recovery=None if recovery == "none" else RecoveryOptions(recovery),
    )
    model, given = load(source, shapes=shapes), Options(**options)
    with shown(progress) as told:
        return measure_curves(model, given, settings, data, workers=executor, cache=cache, metric=metric, progress=told)


@blas_threads()
def measure_curves(
    model: Model,
    options: Options,
    settings: SensitivityConfig,
    data: Any = None,
    *,
    workers: Any = 1,
    cache: Any = None,
    metric: str = "",
    progress: Callable[[str], None] | None = None,
) -> Sensitivity:
    """`sensitivity` of a loaded model; `workers` as in `jobs.stream`, the rest as in `sensitivity`."""
    progress = progress or logger.info
    metric = metric or ("value" if settings.evaluation else "error")
    runs = [] if data is None else calibration.read(data, model, samples=settings.samples, sizes=settings.sizes)
    _check(metric, settings, bool(runs))
    if options.steps > 1 or options.rows:
        raise UsageError("groups are cut one group at a time, in one step", hint="leave out `steps` and `rows`")
    progress("tracing")
    options = options.settled(data=bool(runs))
    groups = trace(model, **options.policy, sizes=settings.sizes)
    progress("scoring")
    scores = criteria.score(groups, options.criterion, options.seed, runs, options.aggregate)
    steps = _steps(groups, scores, options, settings.ratios)
    names = tuple(dict.fromkeys(step.group for step in steps))
    chosen = BudgetFitter.of(groups, scores, options, None, progress).fit().removed
    setting = probe.ProbeContext(
        model=probe.PicklableModel(model),
        policy=options.policy | {"sizes": dict(settings.sizes)},
        names=names,
        runs=runs,
        evaluation=settings.evaluation,
        recovery=settings.recovery,
        whole=settings.whole,
        memory=probe.MEMORY // (workers if isinstance(workers, int) else 1),
    )
    about = _about(model, options, settings, runs)
    wanted: list[Step | None] = [*([None] if settings.evaluation else []), *steps]
    journal, started = Journal(cache), time.perf_counter()
    found, new = _measured(setting, wanted, about=about, journal=journal, workers=workers, progress=progress)
    values = found[-len(steps) :]
    if metric not in values[0]:
        raise UsageError(f"metric {metric!r} is for outputs [samples, classes]", hint=f"use {', '.join(values[0])}")
    return Sensitivity(
        curves=tuple(_curves(groups, steps, values)),
        metric=metric,
        ratios=tuple(settings.ratios),
        whole={"value": found[0]["value"]} if settings.evaluation else {},
        chosen={g.name: len(chosen[g.name]) / len(g.classes) for g in groups.groups if g.name in chosen},
        about=about | {"criterion": options.as_json()["criterion"], "samples": _count(runs)},
        seconds=time.perf_counter() - started,
        measured=new,
    )


def _check(metric: str, settings: SensitivityConfig, has_data: bool) -> None:
    known = ("value",) if settings.evaluation else tuple(m for m in METRICS if m != "value")
    if metric not in known:
        raise UsageError(f"no metric is called {metric!r} here", hint=f"known: {', '.join(known)}")
    if not has_data and (settings.evaluation is None or settings.recovery is not None):
        raise UsageError("there are no inputs to compare outputs on", hint="give unlabelled inputs with --data")
    if settings.evaluation is not None:
        settings.evaluation.check()


def _steps(groups: Groups, scores: Array, options: Options, ratios: Sequence[float]) -> list[Step]:
    """The cuts to measure, group by group in graph order, each by rising number of units."""
    unlimited: dict[str, Any] = dict.fromkeys(KINDS)
    options = replace(options, ratios={}, allocation="uniform", **unlimited)
    known: dict[str, Group] = {g.name: g for g in groups.groups}
    found: dict[str, dict[int, Step]] = {}
    for ratio in sorted(ratios):
        for name, indices in select(groups, scores, replace(options, ratio=ratio)).removed.items():
            group = known[name]
            step = Step(
                group=name,
                remove=tuple(indices.tolist()),
                size=len(group.classes),
                units=group.units,
                kind=group.kind,
                exact=group.exact,
                layout=plans.layout(groups, group),
                approximate=group.approximate,
            )
            found.setdefault(name, {})[len(indices)] = step
    if not found:
        raise UsageError(f"no group has enough units for a ratio of {max(ratios)}", hint="give larger ratios")
    return [step for name in known for step in found.get(name, {}).values()]


def _about(
    model: Model, options: Options, settings: SensitivityConfig, runs: Sequence[Mapping[str, Array]]
) -> dict[str, Any]:
    """What all measurements depend on."""
    return {
        "model": model.digest,
        "data": digest(runs),
        "policy": options.policy | {"sizes": dict(settings.sizes)},
        "evaluation": settings.evaluation.digest if settings.evaluation else "",
        "recovery": settings.recovery.method if settings.recovery else "none",
        "measure": MEASURE,
    }


def _measured(
    setting: probe.ProbeContext,
    steps: Sequence[Step | None],
    about: Mapping[str, Any],
    journal: Journal,
    workers: Any,
    progress: Callable[[str], None],
) -> tuple[list[dict[str, float]], int]:
    """The values of all steps, and how many of them were not in the journal."""
    keys = [key_of(**about, cut=None if s is None else [s.group, s.layout, s.remove]) for s in steps]
    stored = ((index, _values(journal.get(key))) for index, key in enumerate(keys))
    found = {index: values for index, values in stored if values is not None}
    todo = [index for index in range(len(steps)) if index not in found]
    work = jobs.Work(probe.prepare_probe, setting)
    known = f", {len(steps) - len(todo)} are known" if len(todo) < len(steps) else ""
    progress(f"measuring {len(todo)} cuts{known}")
    for done, (place, values) in enumerate(jobs.stream(work, [steps[i] for i in todo], workers), 1):
        index = todo[place]
        found[index] = values
        journal.put(keys[index], values, _label(steps[index]))
        progress(WorkPart.of("measured", done, len(todo), finished=True))
    return [found[index] for index in range(len(steps))], len(todo)


def _values(result: Any) -> dict[str, float] | None:
    """A result of the journal, if it is what a measurement gives: others may have written to the file."""
    known = isinstance(result, dict) and result and all(isinstance(value, float) for value in result.values())
    return result if known else None


def _label(step: Step | None) -> dict[str, Any]:
    return {"group": "", "removed": 0} if step is None else {"group": step.group, "removed": _removed(step)}


def _removed(step: Step) -> int:
    return len(step.remove) * step.units // step.size


def _curves(groups: Groups, steps: Sequence[Step], values: Sequence[Mapping[str, float]]) -> Iterator[Curve]:
    measured: dict[str, list[Point]] = {}
    for step, found in zip(steps, values, strict=True):
        removed = _removed(step)
        measured.setdefault(step.group, []).append(Point(removed, removed / step.units, dict(found)))
    for group in groups.groups:
        if group.name in measured:
            yield Curve(group.name, group.kind, group.exact, group.units, tuple(measured[group.name]))


def _count(runs: Sequence[Mapping[str, Array]]) -> int:
    """Samples in all runs, where axis 0 is the batch."""
    return sum(len(next(iter(run.values()))) if next(iter(run.values())).ndim else 1 for run in runs)
