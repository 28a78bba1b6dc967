"""One recipe tried: carried out, proven by its steps, sized, timed and judged: a job that any worker can do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onnxprune.calibration import Run
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model
from onnxprune.pipelines.auto_recipes import Recipe, VerbStep
from onnxprune.pipelines.auto_steps import StepContext, amounts_of, carry_out_recipe
from onnxprune.pipelines.evaluate import EvaluationData, judge_runs
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress
from onnxprune.runtime import Agreement
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import Speed, measured_speed

# Why a trial that the time did not allow has no model.
STOPPED = "stopped, because the time was up"
# Seconds of timed runs of a trial, and sessions that they are made in.
QUICK, SESSIONS = 0.2, 3


class OutOfTime(Exception):
    """The time that was given is up; only raised between two stages of a trial, which catches it."""


@dataclass(frozen=True)
class Bid:
    """What one trial tries.

    Attributes:
        recipe: its steps.
        share: what the step that is turned is to leave of the original's cost; None where nothing is turned.
        samples: calibration samples that its steps use.
        training: gradient steps.
    """

    recipe: Recipe
    share: float | None
    samples: int
    training: int = 0


@dataclass(frozen=True)
class AutoTrial:
    """One model that was tried.

    Attributes:
        recipe: name of the recipe.
        steps: what was carried out, with all options.
        share: what was asked of the step that is turned; None where nothing is turned.
        samples: calibration samples that the steps used.
        training: gradient steps.
        costs: kind of cost -> amount, in elements, multiply-accumulates of a sample, bytes and seconds.
        shares: kind of cost -> share of the original's; "latency" only where it was measured.
        values: by metric, on held-out samples; "value" is that of labels, or of the user's own measure.
        seconds: wall time.
        problem: why there is no model; empty where there is one.
        key: of the trial, and of its model in the folder of trials.
    """

    recipe: str
    steps: tuple[VerbStep, ...] = ()
    share: float | None = None
    samples: int = 0
    training: int = 0
    costs: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    problem: str = ""
    key: str = ""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> AutoTrial:
        """What was kept of a trial, as `as_json` wrote it."""
        steps = tuple(VerbStep(step["verb"], step["options"]) for step in found["steps"])
        return cls(**{**found, "steps": steps})

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Scores:
    """How good a model is on the samples that judge.

    Attributes:
        values: by metric.
        agreement: with the original; None without data.
    """

    values: Mapping[str, float]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class AutoContext:
    """What all trials have in common.

    Attributes:
        original: what trials are compared with.
        start: what they begin with: the same function, after `prefix`.
        prefix: steps that all trials begin with.
        fitting: inputs that the steps choose, fit and train on.
        judging: inputs that judge, with their labels if there are any.
        wanted: what models are judged by.
        cost: the kind of cost that is to be small.
        place: where times are measured.
        sizes: numbers for symbolic dims.
    """

    original: PicklableModel
    start: PicklableModel
    prefix: tuple[VerbStep, ...]
    fitting: Sequence[Run]
    judging: Sequence[Run]
    wanted: EvaluationData
    cost: str
    place: Place
    sizes: Mapping[str, int]

    @property
    def amounts(self) -> dict[str, float]:
        """Kind of cost -> the original's amount."""
        return amounts_of(self.original.model, self.steps(0, lambda stage: None))

    def steps(self, samples: int, tell: Progress) -> StepContext:
        """What the steps of one trial have in common."""
        inputs = RunInputs(self.fitting or None, samples, self.sizes)
        return StepContext(self.original.model, inputs, self.place, tell)

    def scores(self, model: Model, tell: Progress) -> Scores:
        """Judge a model."""
        values, agreement = dict[str, float](), None
        if self.judging:
            found = judge_runs([self.original.model, model], self.judging, self.wanted, fused=True, progress=tell)
            scores = found.models[1]
            agreement = scores.agreement
            plain = {} if agreement is None else asdict(replace(agreement, outputs=()))
            values = {name: float(v) for name, v in plain.items() if isinstance(v, int | float) and math.isfinite(v)}
            if scores.metrics:
                metric = found.metrics[0]
                values["value"] = scores.metrics[metric.name] * (1 if metric.rises else -1)
        if self.wanted.evaluation is not None:
            tell("--eval")
            values["value"] = self.wanted.evaluation.of(model)
        return Scores(values, agreement)

    def speed(self, model: Model) -> Speed:
        """The time of a run against the original's, measured in a few sessions."""
        return measured_speed(self.original.model, model, self.place, seconds=QUICK, sessions=SESSIONS)


# A bid, and the time of the clock (`time.time`) at which its trial ends.
Job = tuple[Bid, float]


def prepare_auto(context: AutoContext) -> Callable[[Job], tuple[AutoTrial, PicklableModel | None]]:
    """What tries one recipe: a bid -> what came of it, and the model.

    Args:
        context: what all trials have in common.
    """
    before = context.amounts

    def attempt(job: Job) -> tuple[AutoTrial, PicklableModel | None]:
        bid, deadline = job
        begun = time.perf_counter()
        trial = AutoTrial(bid.recipe.name, share=bid.share, samples=bid.samples, training=bid.training)

        def tell(stage: str) -> None:
            if time.time() > deadline:
                raise OutOfTime(stage)

        model = None
        try:
            made = carry_out_recipe(
                context.start.model, bid.recipe, bid.share, context.cost, context.steps(bid.samples, tell)
            )
            trial = replace(_measured(trial, made.model, before, context, tell), steps=(*context.prefix, *made.steps))
            model = PicklableModel(made.model)
        except OutOfTime:
            trial = replace(trial, problem=STOPPED)
        except OnnxPruneError as error:
            trial = replace(trial, problem=error.message)
        return replace(trial, seconds=time.perf_counter() - begun), model

    return attempt


def _measured(
    trial: AutoTrial, model: Model, before: Mapping[str, float], context: AutoContext, tell: Progress
) -> AutoTrial:
    """A trial with what its model costs and scores; the time is only measured where it is the cost."""
    tell("judging")
    costs = amounts_of(model, context.steps(0, tell))
    del costs["latency"]  # what stands in for it
    shares = {kind: amount / max(before[kind], 1) for kind, amount in costs.items()}
    scores = context.scores(model, tell)
    if context.cost == "latency":
        speed = context.speed(model)
        costs["latency"], shares["latency"] = speed.after, speed.ratio.value
    return replace(trial, costs=costs, shares=shares, values=scores.values)
