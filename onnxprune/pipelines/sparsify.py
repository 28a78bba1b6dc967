"""Set elements of weights to zero, and fit those that stay: a loaded model made sparse.

The original and the changed model take the calibration inputs through their graphs side by side. Weights are changed
in graph order, each on the inputs that the weights in front of it, already changed, give, to the original's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune import __version__, calibration
from onnxprune.calibration import is_random
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, file_size
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.dynamic_zeros import train_zeros
from onnxprune.pipelines.in_sequence import ChosenZeros, Sweep
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsified import SparseWeight, Sparsified
from onnxprune.pipelines.unit_order import as_far_as_proven, best_orders
from onnxprune.pipelines.zero_budget import within_budgets
from onnxprune.progress import Progress
from onnxprune.proof import Claim, prove_zeros, same_outputs
from onnxprune.recovery import Training, held_out
from onnxprune.rewriting import Plan, Removal, ZeroStep, agreement, check_zeros, stored_sparse, with_zeros
from onnxprune.runtime import Agreement, blas_threads, key_of
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import (
    ContractionWeight,
    NofM,
    SparsifyOptions,
    contraction_weights,
    eligible_layers,
    measured_speed,
    pattern_checks,
    selected,
)
from onnxprune.tracing import Groups
from onnxprune.tracing import trace as trace_model
from onnxprune.typing import Array, Runs

# `--storage auto` writes sparse weights if the file is at most so large a part of the dense one.
WORTH_IT = 0.9


@blas_threads()
def sparsified(
    model: Model,
    options: SparsifyOptions,
    inputs: RunInputs | None = None,
    *,
    verify: bool = True,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Sparsified:
    """Choose zeros, prove them, and fit the elements that stay.

    A tenth of the samples judges whether the fit is kept; if it is, all of them serve for the fit that stays.

    Args:
        model: the model.
        options: how many zeros there shall be, and how they are chosen.
        inputs: calibration inputs.
        verify: prove that the zeros, before a fit, give the outputs of the original with the same elements masked.
        place: where the models are timed; they are not where None.
        progress: is told about every stage.

    Returns:
        The model and what was done.
    """
    inputs = inputs or RunInputs()
    choose = _with_order if options.order_matters else _in_order
    return choose(model, options, inputs, verify=verify, place=place, progress=progress)


def _in_order(
    model: Model,
    options: SparsifyOptions,
    inputs: RunInputs,
    *,
    verify: bool,
    place: Place | None,
    progress: Progress | None,
) -> Sparsified:
    """Choose zeros with all units where they are."""
    clock = Clock(progress)
    method = options.chosen(data=inputs.data is not None)
    runs = inputs.read(model)
    fitting, held = held_out(runs) if runs else ([], [])
    with clock("tracing"):
        groups = trace_model(model, sizes=inputs.sizes)
        weights, left = _weights(groups, options)
    sweep = Sweep(groups, weights, options, method=method, runs=fitting, progress=clock.progress)
    sweep = within_budgets(model, sweep, clock)
    found, sweep = _kept(model, sweep, held, clock, again=inputs.train is None)
    found = found if inputs.train is None else _trained(found, sweep, model, inputs, runs, clock=clock)
    chosen, plain, judged = found.chosen, found.plain, found.judged
    steps = _steps(weights, chosen, options)
    with clock("storing"):
        final, sparse = _stored(model, judged.model, [w.name for w in weights], options.storage, runs[:1])
    with clock("proving"):
        claim = Claim(steps, plain, judged.model, final, pattern_checks(weights, options))
        verdict = prove_zeros(groups, claim, sizes=inputs.sizes, samples=runs[:1]) if verify else None
    with clock("timing"):
        speed = measured_speed(model, final, place) if place is not None else None
    return Sparsified(
        model=final,
        plan=Plan((), options=options.as_json() | {"sizes": dict(inputs.sizes)}, zeros=tuple(steps), origin=groups),
        groups=groups,
        weights=tuple(
            _told(groups, w, c, fit=judged.fit, sparse=w.name in sparse) for w, c in zip(weights, chosen, strict=True)
        ),
        left=left,
        verdict=verdict,
        masked=judged.masked if judged.fit else None,
        judged=None if inputs.data is None or is_random(inputs.data) else judged.final,
        sizes=(file_size(model), file_size(final)),
        speed=speed,
        training=found.training,
        eligible=eligible_layers(weights, options.zeros),
        seconds=clock.seconds,
    )


def _with_order(model: Model, options: SparsifyOptions, inputs: RunInputs, **how: Any) -> Sparsified:
    """Put units into an order that suits the pattern, and choose zeros there."""
    clock, pattern = Clock(how["progress"]), options.zeros
    assert isinstance(pattern, NofM)
    with clock("ordering units"):
        groups = trace_model(model, sizes=inputs.sizes)
        weights, _ = _weights(groups, options)
        order = best_orders(groups, weights, pattern, options.seed)
        samples = inputs.read(model)[:1] if order.steps else []
        ordered, order = as_far_as_proven(groups, order, sizes=inputs.sizes, samples=samples)
    done = _in_order(ordered, options, inputs, **how)
    plan = replace(done.plan, reorders=order.steps, origin=groups)
    return replace(done, groups=groups, plan=plan, order=order, seconds={**clock.seconds, **done.seconds})


def _weights(groups: Groups, options: SparsifyOptions) -> tuple[list[ContractionWeight], dict[str, str]]:
    """The weights that get zeros; those of contractions that must stay as they are, and why.

    Raises:
        GoalMissed: there is none.
    """
    found, left = contraction_weights(groups)
    if not found:
        why = "; ".join(f"{name!r} {why}" for name, why in list(left.items())[:3])
        raise GoalMissed("nothing to change: no contraction reads a weight that may change", hint=why)
    weights = selected(found, options)
    if not weights and options.masks is None:
        raise GoalMissed("nothing to change: --keep leaves no weight", hint="narrow its globs")
    return weights, left


def _steps(
    weights: Sequence[ContractionWeight], chosen: Sequence[ChosenZeros], options: SparsifyOptions
) -> list[ZeroStep]:
    return [ZeroStep(w.name, c.keep, str(options.zeros)) for w, c in zip(weights, chosen, strict=True)]


def _with_functions(source: Model, groups: Groups, changed: Model) -> Model:
    """The changed model with the functions that were inlined for the trace, where all of its changes fit there."""
    if changed.proto is not groups.model.proto or not all(name in source.initializers for name in changed.values):
        return changed
    return replace(source, values={**source.values, **changed.values})


def carried_out(
    model: Model, plan: Plan, inputs: RunInputs, *, recover: bool = False, verify: bool = True
) -> Sparsified:
    """Set the elements to zero that a plan names.

    Args:
        model: the model that the plan was made for, or another export of the same weights.
        plan: with the zeros; what it removes is left alone, and its units are in order already.
        inputs: calibration inputs.
        recover: fit the elements that stay, if there are inputs.
        verify: prove the zeros.

    Returns:
        The model and what was done.

    Raises:
        UsageError: a weight is not there, has another shape, or may not change here.
    """
    sizes = {**(plan.options.get("sizes") or {}), **inputs.sizes}
    check_zeros(plan.trace(model), plan.zeros)
    options = SparsifyOptions(
        pattern=plan.zeros[0].pattern or "unstructured",
        recover=recover and inputs.data is not None,
        masks={step.tensor: step.keep for step in plan.zeros},
    )
    done = sparsified(model, options, replace(inputs, sizes=sizes), verify=verify)
    lacking = {step.tensor for step in plan.zeros} - {w.name for w in done.weights}
    if lacking:
        name = min(lacking)
        raise UsageError(f"the plan does not fit: weight {name!r} {done.left.get(name, 'is read by no contraction')}")
    return done


@dataclass(frozen=True)
class _Judged:
    """The model that is kept, and how it agrees with the original on held-out samples.

    Attributes:
        model: with zeros alone, or with the elements that stay fitted.
        fit: whether it is the fitted one.
        masked: agreement with zeros alone; None without samples.
        final: agreement of `model`.
    """

    model: Model
    fit: bool
    masked: Agreement | None = None
    final: Agreement | None = None


@dataclass(frozen=True)
class _Fitted:
    """The zeros, and the models with them.

    Attributes:
        chosen: the zeros of every weight.
        plain: the model with zeros alone.
        judged: the model that is kept.
        training: what gradient steps did to it; None if there were none.
    """

    chosen: Sequence[ChosenZeros]
    plain: Model
    judged: _Judged
    training: Training | None = None


def _kept(model: Model, sweep: Sweep, held: Runs, clock: Clock, *, again: bool) -> tuple[_Fitted, Sweep]:
    """The zeros of a sweep, or those of its other method where that alone has a fit that is kept."""
    found, other = _fitted(model, sweep, held, clock, again=again), sweep.options.other(sweep.method)
    if other is None or found.judged.fit:
        return found, sweep
    instead = replace(sweep, method=other)
    second = _fitted(model, instead, held, clock, again=again)
    return (second, instead) if second.judged.fit else (found, sweep)


def _fitted(model: Model, sweep: Sweep, held: Runs, clock: Clock, *, again: bool) -> _Fitted:
    """Choose the zeros, fit what stays and judge it.

    Args:
        model: the model.
        sweep: with the samples that are fitted to.
        held: the samples that judge; the same where there is only one.
        clock: is told about every stage.
        again: make a fit that is kept again, with the samples that judged.
    """
    groups = sweep.groups

    def chosen(sweep: Sweep) -> tuple[Sequence[ChosenZeros], Model, Model]:
        changed, found = sweep.run(sweep.shares())
        zeros = with_zeros(groups, _steps(sweep.weights, found, sweep.options))
        return found, _with_functions(model, groups, zeros), _with_functions(model, groups, changed)

    with clock("choosing"):
        found, plain, changed = chosen(sweep)
    with clock("judging"):
        judged = _judged(groups, plain, changed if sweep.fits else None, held)
    if not judged.fit or held is sweep.runs or not again:
        return _Fitted(found, plain, judged)
    with clock("choosing with all samples"):
        found, plain, changed = chosen(replace(sweep, runs=[*sweep.runs, *held]))
    return _Fitted(found, plain, replace(judged, model=changed))


def _trained(found: _Fitted, sweep: Sweep, model: Model, inputs: RunInputs, runs: Runs, *, clock: Clock) -> _Fitted:
    """Train the model with zeros; where they were chosen meanwhile, keep them only if that is better."""
    if not runs or is_random(inputs.data):
        raise UsageError("training needs inputs as the model gets them", hint="give --data a file of real inputs")
    assert inputs.train is not None
    groups, before = sweep.groups, found.judged
    given = {"options": sweep.options.as_json(), "sizes": dict(inputs.sizes), "version": __version__}
    training = inputs.train.belonging_to(
        "" if inputs.train.saving is None else key_of(model=model.digest, data=calibration.digest(runs), **given)
    )
    with clock("training"):
        trained, chosen, done = train_zeros(sweep, found.chosen, before.model, runs, training)
    changed = _with_functions(model, groups, trained)
    final = agreement(Removal(groups, np.zeros(groups.classes.count, bool)), changed, held_out(runs)[1])
    if inputs.train.while_training and before.final is not None and not final.is_better_than(before.final):
        return replace(found, training=replace(done, best=0, after=done.before))
    plain = _with_functions(model, groups, with_zeros(groups, _steps(sweep.weights, chosen, sweep.options)))
    return _Fitted(chosen, plain, replace(before, model=changed, fit=True, final=final), done)


def _judged(groups: Groups, plain: Model, fitted: Model | None, held: Runs) -> _Judged:
    """Keep the fitted model, unless it is worse by every measure."""
    if not held:
        return _Judged(plain, False)
    nothing = Removal(groups, np.zeros(groups.classes.count, bool))
    masked = agreement(nothing, plain, held)
    if fitted is None:
        return _Judged(plain, False, masked, masked)
    found = agreement(nothing, fitted, held)
    if found.is_known and not found.is_better_than(masked):
        return _Judged(plain, False, masked, masked)
    return _Judged(fitted, True, masked, found)


def _stored(source: Model, model: Model, names: Sequence[str], storage: str, runs: Runs) -> tuple[Model, set[str]]:
    """The model with weights stored sparse where they are asked for, smaller, and loaded by the runtime.

    What came sparse stays so. What was put into the body of a branch or loop stays dense.
    """
    came = {tensor.values.name for tensor in source.proto.graph.sparse_initializer}
    found, done = model, set[str]()
    for wanted in ([name for name in names if name in came], names if storage != "dense" else ()):
        made, sparse = stored_sparse(found, wanted)
        most = file_size(found) * (WORTH_IT if storage == "auto" and wanted is names else 1.0)
        if sparse and file_size(made) < most and same_outputs(model, made, runs):
            found, done = made, {*done, *sparse}
    return found, done


def _told(groups: Groups, weight: ContractionWeight, chosen: ChosenZeros, *, fit: bool, sparse: bool) -> SparseWeight:
    tracing, stored = groups.tracing, groups.tracing.stored_value(weight.name)
    assert stored is not None
    zero = tracing.stored_zero(weight.name).astype(stored.dtype)
    alive = tracing.elements(weight.name, stored) != tracing.elements(weight.name, zero)
    return SparseWeight(
        weight.name,
        *weight.nodes,
        weight.shape,
        zeros=_zeros(alive & chosen.keep),
        before=_zeros(alive),
        method=chosen.method,
        refitted=chosen.refitted and fit,
        error=chosen.error,
        stored="sparse" if sparse else "dense",
    )


def _zeros(nonzero: Array) -> int:
    """How many elements of a mask are false."""
    return int(nonzero.size - np.count_nonzero(nonzero))
