"""One model of a search, made under one budget and judged: a job that any worker can do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from onnxprune.allocation import Options, fit_budgets
from onnxprune.calibration import Run
from onnxprune.cost import counts as cost
from onnxprune.model import Model
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.recovery import RecoveryOptions, recover
from onnxprune.rewriting import Removal, agreement, removed_classes
from onnxprune.rewriting import plan as plans
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime.bench import Place
from onnxprune.tracing import trace
from onnxprune.typing import Array


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Attributes:
        targets: all must hold.
        evaluation: the user's measure; needed where a target is on its value.
        recovery: how every trial is recovered, where there is data.
        cost: the budget that is searched over: "macs", "params" or "size".
        trials: most models that are tried.
        samples: how many calibration samples to use.
        sizes: numbers for symbolic dims.
        verify: prove the model that is found.
        place: where the model that is found is timed; it is not where None.
    """

    targets: tuple[QualityConstraint, ...]
    evaluation: Evaluation | None = None
    recovery: RecoveryOptions = field(default_factory=RecoveryOptions)
    cost: str = "macs"
    trials: int = 8
    samples: int = 256
    sizes: Mapping[str, int] = field(default_factory=dict)
    verify: bool = True
    place: Place | None = None


@dataclass(frozen=True)
class Trial:
    """One model that was tried.

    Attributes:
        share: its budget, as a share of what the original has.
        reached: what the model has, as such a share; more than its budget only where less cannot be reached.
        params: elements of its weights.
        macs: multiply-accumulates for one sample.
        size: bytes of its weights.
        values: by metric, on held-out inputs or of the evaluation.
        good: whether all targets hold.
        seconds: wall time.
        plan: what was removed, as JSON.
    """

    share: float
    reached: float
    params: int
    macs: int
    size: int
    values: Mapping[str, float]
    good: bool
    seconds: float
    plan: str = field(repr=False)


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search have in common.

    Attributes:
        model: the original.
        options: what to prune.
        settings: the targets, and how to search.
        scores: float64[classes].
        fitting: inputs to recover by.
        judging: inputs to compare outputs on.
        whole: the original's own value under an evaluation.
    """

    model: PicklableModel
    options: Options
    settings: SearchConfig
    scores: Array
    fitting: Sequence[Run]
    judging: Sequence[Run]
    whole: Mapping[str, float]

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether a model with these values is good enough."""
        return all(target.holds(values, self.whole) for target in self.settings.targets)


def prepare_trial(setting: TrialContext) -> Callable[[float], Trial]:
    """What tries one budget: a share of the original's cost -> the trial."""
    settings = setting.settings
    groups = trace(setting.model.model, **setting.options.policy, sizes=settings.sizes)
    before = cost.of_trace(groups.tracing, setting.model.model)

    def attempt(share: float) -> Trial:
        started = time.perf_counter()
        options = with_budget(setting.options, settings, share)
        removed = fit_budgets.fit(groups, setting.scores, options).removed
        removal = Removal(groups, removed_classes(groups, removed))
        small = rewrite(groups, removal.removed_classes)
        if setting.fitting and settings.recovery.method != "none":
            small, _ = recover(removal, small, setting.fitting, settings.recovery)
        values = measure_values(removal, small, setting)
        left = cost.of_trace(groups.tracing, small, removal.size)
        reached = getattr(left, settings.cost) / getattr(before, settings.cost)
        plan = plans.make(groups, removed, setting.scores, options.as_json(), settings.sizes or None).to_json()
        seconds = time.perf_counter() - started
        return Trial(
            share=share,
            reached=reached,
            params=left.params,
            macs=left.macs,
            size=left.size,
            values=values,
            good=setting.holds(values),
            seconds=seconds,
            plan=plan,
        )

    return attempt


def measure_values(removal: Removal, model: Model, setting: TrialContext) -> dict[str, float]:
    """Measure a model: by metric, its agreement with the original on inputs that judge, and its own value."""
    values: dict[str, float] = {}
    if setting.judging:
        found = asdict(agreement(removal, model, setting.judging))
        known = {name: value for name, value in found.items() if isinstance(value, int | float)}
        values = {name: float(value) for name, value in known.items() if math.isfinite(value)}
    if setting.settings.evaluation:
        values["value"] = setting.settings.evaluation.of(model)
    return values


def with_budget(options: Options, settings: SearchConfig, share: float) -> Options:
    """The options with the budget that is searched over, as a share of the original's cost."""
    budget: dict[str, Any] = {settings.cost: f"{100 * share:.6f}%"}
    return replace(options, **budget)
