"""Make products of weights: fewer numbers and fewer multiplications, at a loss.

Ranks come from the energy that the directions of every layer's outputs have on the calibration inputs. Then the
original and the changed model take these inputs through their graphs side by side, and every weight is fitted, in graph
order, to the outputs of the original on the inputs that the weights in front of it, already changed, give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from onnxprune.allocation import BudgetResult
from onnxprune.allocation.ranks import (
    AUTO,
    PLAIN,
    WHITENED,
    LowRankOptions,
)
from onnxprune.calibration import is_random
from onnxprune.cost import Cost, counts
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, file_size
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.factor_choice import chosen_sweeps
from onnxprune.pipelines.factor_latency import LATENCY
from onnxprune.pipelines.factor_options import names_of
from onnxprune.pipelines.factor_sweep import FactorSweep, FoundFactors
from onnxprune.pipelines.factor_timing import ProductTimer
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress
from onnxprune.proof import FactorClaim, Verdict, prove_factors
from onnxprune.recovery import held_out
from onnxprune.rewriting import FactoriseStep, Plan, Removal, agreement
from onnxprune.rewriting.factorise import FactorisableWeight, check_factors, factorisable, unfactorisable
from onnxprune.runtime import Agreement, blas_threads
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import Speed, measured_speed
from onnxprune.tracing import Groups
from onnxprune.tracing import trace as trace_model
from onnxprune.typing import Runs

NOT_SMALLER = "no rank that is allowed makes a product of it smaller, or the budget does not need one"


@dataclass(frozen=True)
class LowRankWeight:
    """A weight that became a product.

    Attributes:
        name: of the stored weight.
        node: the node that read it.
        op: its operator.
        shape: its sizes.
        form: which axes of a kernel its factors have.
        ranks: how many directions go between the factors.
        elements: numbers before and after.
        lost: the share of the energy of the layer's outputs that is lost.
        refitted: whether the factors were fitted.
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    form: str
    ranks: tuple[int, ...]
    elements: tuple[int, int]
    lost: float
    refitted: bool

    @property
    def rank(self) -> int:
        """How many directions go into the last factor."""
        return self.ranks[-1]


@dataclass(frozen=True)
class Factorised:
    """Everything that making products gave.

    Attributes:
        model: the model with products.
        plan: which weights, and the directions that stay.
        groups: the traced original.
        weights: what became products, in graph order.
        left: chosen weights that stay whole -> why.
        verdict: the proof of the products, before any fit; None if it was not asked for.
        before: cost of the original.
        after: cost of the model.
        sizes: bytes of the file before and after.
        goals: the budgets, and what was reached.
        plain: agreement with the original on held-out samples without a fit; None without a fit.
        judged: the same of what was kept; None without data.
        speed: the time of a run before and after; None if it was not measured.
        seconds: wall time by stage.
    """

    model: Model
    plan: Plan
    groups: Groups
    weights: tuple[LowRankWeight, ...]
    left: Mapping[str, str]
    verdict: Verdict | None
    before: Cost
    after: Cost
    sizes: tuple[int, int]
    goals: tuple[BudgetResult, ...] = ()
    plain: Agreement | None = None
    judged: Agreement | None = None
    speed: Speed | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@blas_threads()
def factorised(
    model: Model,
    options: LowRankOptions,
    inputs: RunInputs | None = None,
    *,
    verify: bool = True,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Factorised:
    """Make products of weights, prove them, and fit the factors.

    Args:
        model: the model.
        options: which weights, and how small they get.
        inputs: calibration inputs.
        verify: prove that the products, before a fit, give what projected weights give.
        place: where the models are timed; they are not where None.
        progress: is told about every stage.

    Returns:
        The model and what was done.

    Raises:
        GoalMissed: no weight may become a product.
    """
    inputs, clock = inputs or RunInputs(), Clock(progress)
    runs = inputs.read(model)
    fitting, held = held_out(runs) if runs else ([], [])
    with clock("tracing"):
        groups, before = trace_model(model, sizes=inputs.sizes), counts.of(model, inputs.sizes)
        weights = check_factors(groups, options.steps) if options.steps else _selected(groups, options)
    sweep = FactorSweep(groups, weights, options, _method(options, data=bool(runs)), fitting)
    place = place or (Place(sizes=inputs.sizes) if LATENCY in options.budgets else None)
    timer = None if place is None else ProductTimer(groups, place, clock.progress)
    sweep, made = _best(sweep, (model, before), timer, held, clock)
    plan_steps = [FactoriseStep(w.name, found.directions) for w, found in zip(sweep.weights, made.found, strict=True)]
    with clock("proving"):
        claim = FactorClaim(plan_steps, made.plain, made.model)
        verdict = prove_factors(groups, claim, sizes=inputs.sizes, samples=runs[:1]) if verify else None
    after, sizes = counts.of(made.model, inputs.sizes), (file_size(model), file_size(made.model))
    with clock("timing"):
        speed = _speed(made.model, options, timer)
    told = options.as_json() | {"sizes": dict(inputs.sizes)}
    made = made if runs and not is_random(inputs.data) else replace(made, plain_judged=None, judged=None)
    return Factorised(
        model=made.model,
        plan=Plan((), options=told, factors=tuple(plan_steps), origin=groups),
        groups=groups,
        weights=tuple(_told(w, f, fit=made.fit) for w, f in zip(sweep.weights, made.found, strict=True)),
        left=_left(sweep, weights),
        verdict=verdict,
        before=before,
        after=after,
        sizes=sizes,
        goals=_goals(options, (before, after), sizes, speed),
        plain=made.plain_judged if sweep.fits else None,
        judged=made.judged,
        speed=speed,
        seconds=clock.seconds,
    )


def factors_carried_out(
    model: Model, plan: Plan, inputs: RunInputs, *, recover: bool = True, verify: bool = True
) -> Factorised:
    """Make the products that a plan names.

    Args:
        model: the model that the plan was made for, or another export of the same weights.
        plan: with the products; what it removes is left alone.
        inputs: calibration inputs.
        recover: fit the factors, if there are inputs.
        verify: prove the products.

    Returns:
        The model and what was done.

    Raises:
        UsageError: a weight is not there, or has other sizes.
    """
    sizes = {**(plan.options.get("sizes") or {}), **inputs.sizes}
    options = LowRankOptions(recover=recover, steps=plan.factors)
    return factorised(model, options, replace(inputs, sizes=sizes), verify=verify)


def _method(options: LowRankOptions, *, data: bool) -> str:
    """How directions are found.

    Raises:
        UsageError: the method looks at inputs, and there are none.
    """
    if options.method == AUTO:
        return WHITENED if data else PLAIN
    if options.method != PLAIN and not data:
        raise UsageError(f"the method {options.method!r} looks at what the layers read", hint="give inputs with --data")
    return options.method


def _selected(groups: Groups, options: LowRankOptions) -> list[FactorisableWeight]:
    """The weights that may become products.

    Raises:
        UsageError: a glob matches nothing.
        GoalMissed: there is none.
    """
    found = factorisable(groups)
    if not found:
        raise GoalMissed(
            "nothing to change: no contraction has a float weight for itself",
            hint="weights that several nodes share, and quantised ones, are not factorised",
        )
    for glob in (*options.only, *options.keep, *options.ranks):
        if not any(fnmatchcase(name, glob) for w in found for name in names_of(w)):
            whys = [
                f"{w.name!r} cannot be a product: {why}" for w, why in unfactorisable(groups) if _matches(w, [glob])
            ]
            raise UsageError(
                whys[0] if whys else f"no weight or node matches {glob!r}",
                hint=f"there are: {', '.join(w.name for w in found[:5])}",
            )
    only = [w for w in found if not options.only or _matches(w, options.only)]
    if options.ranks and options.share is None and not options.budgets:
        only = [w for w in only if _matches(w, list(options.ranks))]
    kept = [w for w in only if not _matches(w, options.keep)]
    if not kept:
        raise GoalMissed("nothing to change: --keep leaves no weight", hint="narrow its globs")
    return kept


def _left(sweep: FactorSweep, weights: Sequence[FactorisableWeight]) -> dict[str, str]:
    """Chosen weights that stay whole -> why, those that cannot become products among them."""
    left = {w.name: sweep.left.get(w.name, NOT_SMALLER) for w in weights if w not in sweep.weights}
    options = sweep.options
    for weight, why in [] if options.steps else unfactorisable(sweep.groups):
        if (not options.only or _matches(weight, options.only)) and not _matches(weight, options.keep):
            left[weight.name] = why
    return left


def _matches(weight: FactorisableWeight, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for name in names_of(weight) for glob in globs)


def _told(weight: FactorisableWeight, found: FoundFactors, *, fit: bool) -> LowRankWeight:
    sizes, directions = weight.kernel_sizes, found.directions
    parts = sizes.factors(directions.form, directions.ranks)
    return LowRankWeight(
        name=weight.name,
        node=weight.view.name,
        op=weight.view.node.op_type,
        shape=weight.shape,
        form=directions.form,
        ranks=directions.ranks,
        elements=(sizes.elements, sum(map(math.prod, parts))),
        lost=found.lost,
        refitted=fit and found.refitted,
    )


# --- ranks ----------------------------------------------------------------------------------------------------


def _best(
    sweep: FactorSweep, original: tuple[Model, Cost], timer: ProductTimer | None, held: Runs, clock: Clock
) -> tuple[FactorSweep, _Made]:
    """The ranks whose model is nearest to the original on held-out samples, or those of a plan; and that model."""
    sweeps = [sweep]
    if not sweep.options.steps:
        with clock("choosing ranks"):
            sweeps = chosen_sweeps(sweep, original, timer, clock.progress)
    tried = [(each, _tried(each, held, clock)) for each in sweeps]
    best, made = min(tried, key=lambda pair: pair[1].divergence)
    return best, _finished(made, best, held, clock)


def _goals(
    options: LowRankOptions, costs: tuple[Cost, Cost], sizes: tuple[int, int], speed: Speed | None
) -> tuple[BudgetResult, ...]:
    """The budgets, and what was reached: costs, bytes and times before and after."""
    found = []
    for kind, amount in options.budgets.items():
        if kind == LATENCY:
            assert speed is not None
            old, new = speed.before, speed.after
        else:
            old, new = sizes if kind == "size" else (getattr(cost, kind) for cost in costs)
        found.append(BudgetResult(kind=kind, before=old, most=amount.limit(old), reached=new))
    return tuple(found)


def _speed(made: Model, options: LowRankOptions, timer: ProductTimer | None) -> Speed | None:
    """The time of a run before and after, measured as its budget asks."""
    if timer is None:
        return None
    if LATENCY not in options.budgets:
        return measured_speed(timer.groups.model, made, timer.place)
    ratio = timer.model.compared(made)
    return Speed(timer.model.before, timer.model.before * ratio.value, ratio, timer.place)


# --- the walk through the model -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Made:
    """The models with products, and how they agree with the original on held-out samples."""

    found: Sequence[FoundFactors]
    plain: Model
    model: Model
    fit: bool
    plain_judged: Agreement | None = None
    judged: Agreement | None = None

    @property
    def divergence(self) -> float:
        """How far the outputs are from the original's; nothing without data."""
        of = self.judged
        return 0.0 if of is None else of.kl if of.kl is not None else of.error


def _tried(sweep: FactorSweep, held: Runs, clock: Clock) -> _Made:
    """Find the factors and judge them."""
    with clock("factorising"):
        found, plain, fitted = sweep.run(clock.progress)
    if not held:
        return _Made(found, plain, plain, fit=False)
    with clock("judging"):
        nothing = Removal(sweep.groups, np.zeros(sweep.groups.classes.count, bool))
        without = agreement(nothing, plain, held)
        having = agreement(nothing, fitted, held) if sweep.fits else without
    if not sweep.fits or (having.is_known and not having.is_better_than(without)):
        return _Made(found, plain, plain, fit=False, plain_judged=without, judged=without)
    return _Made(found, plain, fitted, fit=True, plain_judged=without, judged=having)


def _finished(made: _Made, sweep: FactorSweep, held: Runs, clock: Clock) -> _Made:
    """A fit that is kept, made again with the samples that judged, so that none is wasted."""
    if not made.fit or held is sweep.runs:
        return made
    with clock("factorising with all samples"):
        found, plain, fitted = replace(sweep, runs=[*sweep.runs, *held]).run(clock.progress)
    return replace(made, found=found, plain=plain, model=fitted)
