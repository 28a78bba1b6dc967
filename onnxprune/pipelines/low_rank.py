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
    RankChoice,
    allocate_ranks,
)
from onnxprune.calibration import is_random
from onnxprune.cost import Cost, counts
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, file_size
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.factor_sweep import FactorSweep, FoundFactors, names_of
from onnxprune.pipelines.factor_timing import slower_products
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress
from onnxprune.proof import FactorClaim, Verdict, prove_factors
from onnxprune.recovery import held_out
from onnxprune.rewriting import FactoriseStep, Plan, Removal, agreement
from onnxprune.rewriting.factorise import FactorisableWeight, check_factors, factorisable
from onnxprune.runtime import Agreement, blas_threads
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import Speed, measured_speed
from onnxprune.tracing import Groups
from onnxprune.tracing import trace as trace_model
from onnxprune.typing import Runs

# Rounds of choosing ranks and timing the products, each of which leaves a weight whole at least.
TIMINGS = 8
# Without data, all weights become products where at least so large a share of them goes.
MUCH = 0.25
# Bytes that a second node and a second weight take beside the numbers, about.
FRAME = 200
TOO_SLOW = "the two products are slower than the one"
NOT_SMALLER = "no rank that is allowed makes a product of it smaller, or the budget does not need one"


@dataclass(frozen=True)
class LowRankWeight:
    """A weight that became a product.

    Attributes:
        name: of the stored weight.
        node: the node that read it.
        op: its operator.
        shape: its sizes.
        rank: the inner size of the product.
        elements: numbers before and after.
        lost: the share of the energy of the layer's outputs that is lost.
        refitted: whether the factors were fitted.
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    rank: int
    elements: tuple[int, int]
    lost: float
    refitted: bool


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
        groups = trace_model(model, sizes=inputs.sizes)
        weights = check_factors(groups, options.steps) if options.steps else _selected(groups, options)
    sweep = FactorSweep(groups, weights, options, _method(options, data=bool(runs)), fitting)
    before = counts.of(model, inputs.sizes)
    sweep, made = _best(sweep, (model, before), place, held, clock)
    left = {w.name: sweep.left.get(w.name, NOT_SMALLER) for w in weights if w not in sweep.weights}
    plan_steps = [FactoriseStep(w.name, found.basis) for w, found in zip(sweep.weights, made.found, strict=True)]
    with clock("proving"):
        claim = FactorClaim(plan_steps, made.plain, made.model)
        verdict = prove_factors(groups, claim, sizes=inputs.sizes, samples=runs[:1]) if verify else None
    after, sizes = counts.of(made.model, inputs.sizes), (file_size(model), file_size(made.model))
    with clock("timing"):
        speed = measured_speed(model, made.model, place) if place is not None else None
    told = options.as_json() | {"sizes": dict(inputs.sizes)}
    known = bool(runs) and not is_random(inputs.data)
    return Factorised(
        model=made.model,
        plan=Plan((), options=told, factors=tuple(plan_steps), origin=groups),
        groups=groups,
        weights=tuple(_told(w, f, fit=made.fit) for w, f in zip(sweep.weights, made.found, strict=True)),
        left=left,
        verdict=verdict,
        before=before,
        after=after,
        sizes=sizes,
        goals=_goals(options, (before, sizes[0]), (after, sizes[1])),
        plain=made.plain_judged if known and sweep.fits else None,
        judged=made.judged if known else None,
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
            raise UsageError(
                f"no weight or node matches {glob!r}", hint=f"there are: {', '.join(w.name for w in found[:5])}"
            )
    only = [w for w in found if not options.only or _matches(w, options.only)]
    if options.ranks and options.share is None and not options.budgets:
        only = [w for w in only if _matches(w, list(options.ranks))]
    kept = [w for w in only if not _matches(w, options.keep)]
    if not kept:
        raise GoalMissed("nothing to change: --keep leaves no weight", hint="narrow its globs")
    return kept


def _matches(weight: FactorisableWeight, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for name in names_of(weight) for glob in globs)


def _told(weight: FactorisableWeight, found: FoundFactors, *, fit: bool) -> LowRankWeight:
    inner, outer = weight.sizes
    rank = int(found.basis.shape[1])
    return LowRankWeight(
        name=weight.name,
        node=weight.view.name,
        op=weight.view.node.op_type,
        shape=weight.shape,
        rank=rank,
        elements=(inner * outer, rank * (inner + outer)),
        lost=found.lost,
        refitted=fit and found.refitted,
    )


# --- ranks ----------------------------------------------------------------------------------------------------


def _best(
    sweep: FactorSweep, original: tuple[Model, Cost], place: Place | None, held: Runs, clock: Clock
) -> tuple[FactorSweep, _Made]:
    """The ranks whose model is nearest to the original on held-out samples, or those of a plan; and that model."""
    sweeps = [sweep]
    if not sweep.options.steps:
        with clock("choosing ranks"):
            sweeps = _sweeps(sweep, original, place, clock)
    tried = [(each, _tried(each, held, clock)) for each in sweeps]
    best, made = min(tried, key=lambda pair: pair[1].divergence)
    return best, _finished(made, best, held, clock)


def _sweeps(sweep: FactorSweep, original: tuple[Model, Cost], place: Place | None, clock: Clock) -> list[FactorSweep]:
    """The weights and ranks that are tried: some weights whole, and all of them products; one of these without data.

    Raises:
        GoalMissed: all weights stay whole.
    """
    choices = sweep.choices(original[1])
    limits = _limits(sweep.options, choices, original)
    asked = max((1 - most / sum(c.costs[k][0] for c in choices) for k, most in limits.items()), default=0.0)
    ways = (True, False) if sweep.runs and limits else (asked < MUCH,)
    found: list[FactorSweep] = []
    for whole in ways:
        ranks, left = _ranks(sweep, choices, limits, place, clock.progress, whole=whole)
        if not any(ranks == other.ranks for other in found):
            found.append(replace(sweep, weights=[w for w in sweep.weights if ranks[w.name]], ranks=ranks, left=left))
    return found


def _ranks(
    sweep: FactorSweep,
    choices: Sequence[RankChoice],
    limits: Mapping[str, float],
    place: Place | None,
    progress: Progress,
    *,
    whole: bool,
) -> tuple[dict[str, int], dict[str, str]]:
    """The rank of every weight, 0 for one that stays whole, and those that are too slow.

    Raises:
        GoalMissed: all stay whole.
    """
    options, left = sweep.options, dict[str, str]()
    for _ in range(TIMINGS):
        free = [replace(c, fixed=0) if c.name in left else c for c in choices]
        ranks = allocate_ranks(free, limits, whole=whole)
        split = [w for w in sweep.weights if ranks[w.name]]
        if options.allow_slower or place is None or not split:
            break
        progress("timing products")
        slow = slower_products(split, ranks, place)
        if not slow:
            break
        left |= dict.fromkeys(slow, TOO_SLOW)
    if not any(ranks.values()):
        if TOO_SLOW in left.values():
            raise GoalMissed(
                "nothing to change: products are slower than the weights here", hint="--allow-slower takes them anyway"
            )
        raise GoalMissed("nothing to change: no product is smaller", hint="a larger --ratio, or --round-to 1")
    return ranks, left


def _limits(options: LowRankOptions, choices: Sequence[RankChoice], original: tuple[Model, Cost]) -> dict[str, float]:
    """Kind -> what the chosen weights may cost together: their share, and what a budget leaves for them."""
    limits = dict[str, float]()
    whole = {kind: sum(c.costs[kind][0] for c in choices) for kind in ("params", "macs", "size")}
    model, cost = original
    totals = {"params": cost.params, "macs": cost.macs, "size": file_size(model)}
    for kind, amount in options.budgets.items():
        limits[kind] = amount.limit(totals[kind]) - (totals[kind] - whole[kind])
    if options.share is not None:
        limits["params"] = min(limits.get("params", math.inf), (1 - options.share) * whole["params"])
    return limits


def _goals(options: LowRankOptions, before: tuple[Cost, int], after: tuple[Cost, int]) -> tuple[BudgetResult, ...]:
    found = []
    for kind, amount in options.budgets.items():
        old, new = (size if kind == "size" else getattr(cost, kind) for cost, size in (before, after))
        found.append(BudgetResult(kind=kind, before=old, most=amount.limit(old), reached=new))
    return tuple(found)


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
