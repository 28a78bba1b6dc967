"""Proof of products: the model with factors equals the original whose weights are projected, computed another way."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import RunError
from onnxprune.layers.factor_forms import Directions
from onnxprune.model import Model
from onnxprune.proof import strength as strengths
from onnxprune.proof.compare_outputs import differences
from onnxprune.proof.prove import LONGEST_PROOF, NOISE_MARGIN, tolerance_of
from onnxprune.proof.runnable import runs_to_compare
from onnxprune.proof.strength import Sample, Strength
from onnxprune.proof.unmasked import output_noise
from onnxprune.proof.validity import valid
from onnxprune.proof.verdict import Verdict, of_errors
from onnxprune.rewriting import FactoriseStep, with_dense, written_back
from onnxprune.rewriting.factorise import check_factors
from onnxprune.runtime import Session
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Feeds

# Factors that are made wrong on purpose, at most.
MOST_SAMPLES = 8


@dataclass(frozen=True)
class FactorClaim:
    """What is said of a model with products.

    Attributes:
        steps: the directions that stay, for every weight.
        plain: the model with the factors of the original's weights.
        final: the model whose factors may have other values.
    """

    steps: Sequence[FactoriseStep]
    plain: Model
    final: Model


def prove_factors(
    groups: Groups, claim: FactorClaim, *, sizes: Mapping[str, int] | None = None, samples: Sequence[Feeds] = ()
) -> Verdict:
    """Prove a model with products against the original.

    Args:
        groups: the traced original.
        claim: what is to be proven.
        sizes: numbers for symbolic dims.
        samples: inputs of the user, which are run beside random ones.

    Returns:
        The verdict; its error is that of the factors of the original's weights.
    """
    tolerance, checks = tolerance_of(groups), ["checker and strict shape inference"]
    for model in (claim.plain, claim.final):
        if problem := valid(groups.model, model):
            return Verdict(False, math.nan, tolerance, problem, checks=checks)
    runs, problem = runs_to_compare(groups, sizes or {}, samples)
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks, runnable=False)
    try:
        wanted, noise = _wanted(projected_original(groups, claim.steps), runs)
        errors = _errors(wanted, _outputs(claim.plain, runs))
        vague = {name for name, error in errors.items() if tolerance < error <= NOISE_MARGIN * noise[name]}
        wanted = _without(wanted, vague)
        errors = _errors(wanted, _outputs(claim.plain, runs))
        noticed = _strength(groups, claim, wanted, runs, tolerance)
        _ = _outputs(claim.final, runs)
    except RunError as error:
        return Verdict(
            False, math.nan, tolerance, f"a model with products does not run: {error.message}", checks=checks
        )
    if not errors:
        problem = "no output says anything: all are rounding errors of numbers that cancel"
        return Verdict(False, math.nan, tolerance, problem, checks=checks)
    checks += [f"output {name!r} is rounding errors of numbers that cancel, and not compared" for name in sorted(vague)]
    return replace(of_errors(errors, tolerance, checks, "the original with projected weights"), strength=noticed)


def projected_original(groups: Groups, steps: Sequence[FactoriseStep]) -> Model:
    """The original with weights that are projected onto the directions that stay; no node of it changes.

    Args:
        groups: the traced original.
        steps: the directions that stay.

    Returns:
        The model.
    """
    flat = with_dense(groups, [step.tensor for step in steps])
    values = {}
    for step, weight in zip(steps, check_factors(groups, steps), strict=True):
        stored = flat.array(step.tensor)
        made = _projected(stored.astype(np.float64), step.directions, weight.outer_axis).astype(stored.dtype)
        values[step.tensor] = lambda made=made: made
    return written_back(groups, flat, values)


def _projected(stored: Array, directions: Directions, outer_axis: int) -> Array:
    """A stored weight, projected along its outputs, and along what enters, which are its first other axes."""
    if (leaving := directions.leaving) is not None:
        basis = leaving.astype(np.float64)
        stored = np.moveaxis(np.tensordot(stored, basis @ basis.T, (outer_axis, 0)), -1, outer_axis)
    if (entering := directions.entering) is not None:
        basis = entering.astype(np.float64)
        turned = np.moveaxis(stored, outer_axis, -1)
        rows = basis @ (basis.T @ turned.reshape(len(basis), -1))
        stored = np.moveaxis(rows.reshape(turned.shape), -1, outer_axis)
    return np.ascontiguousarray(stored)


def _outputs(model: Model, runs: Sequence[Feeds]) -> list[tuple[list[str], list[Array]]]:
    with Session(model, limit=LONGEST_PROOF) as session:
        return [(session.outputs, session.run(feeds)) for feeds in runs]


def _wanted(reference: Model, runs: Sequence[Feeds]) -> tuple[list[tuple[list[str], list[Array]]], dict[str, float]]:
    """The outputs of the reference, and what rounding of the inputs moves each of them by."""
    made, noise = [], dict[str, float]()
    with Session(reference, limit=LONGEST_PROOF) as session:
        for feeds in runs:
            found = session.run(feeds)
            made.append((session.outputs, found))
            moved = output_noise(session, feeds, found)
            noise = {name: max(by, noise.get(name, 0.0)) for name, by in moved.items()}
    return made, noise


def _without(
    made: Sequence[tuple[list[str], list[Array]]], names: Collection[str]
) -> list[tuple[list[str], list[Array]]]:
    """The outputs that are not named."""
    kept = [[(name, value) for name, value in zip(*one, strict=True) if name not in names] for one in made]
    return [([name for name, _ in one], [value for _, value in one]) for one in kept]


def _errors(
    wanted: Sequence[tuple[list[str], list[Array]]], found: Sequence[tuple[list[str], list[Array]]]
) -> dict[str, float]:
    errors: dict[str, float] = {}
    for (names, one), (others, two) in zip(wanted, found, strict=True):
        by_name = dict(zip(others, two, strict=True))
        apart = differences(names, one, [by_name[name] for name in names])
        errors = {name: max(error, errors.get(name, 0.0)) for name, error in apart.items()}
    return errors


def _strength(
    groups: Groups,
    claim: FactorClaim,
    wanted: Sequence[tuple[list[str], list[Array]]],
    runs: Sequence[Feeds],
    tolerance: float,
) -> Strength:
    """How many of a sample of wrong factors the proof would have noticed."""
    rng, old = np.random.default_rng(0), groups.model.initializers
    fresh = [name for name in claim.plain.initializers if name not in old]
    samples = []
    for name in rng.permutation(np.array(fresh, object))[:MOST_SAMPLES]:
        right = claim.plain.array(name)
        wrong = strengths.changed(right, rng)
        if wrong is not None:
            samples.append(
                Sample(group=name, weight=name, given=f"{name}_given", right=right, wrong=wrong, reach=frozenset())
            )
    found = {s.weight: _is_noticed(claim.plain, s, wanted, runs, tolerance) for s in samples}
    return Strength(len(claim.steps), found)


def _is_noticed(
    plain: Model,
    sample: Sample,
    wanted: Sequence[tuple[list[str], list[Array]]],
    runs: Sequence[Feeds],
    tolerance: float,
) -> bool:
    with Session(strengths.with_weights_as_inputs(plain, [sample]), limit=LONGEST_PROOF) as session:
        found = [(session.outputs, session.run({**feeds, sample.given: sample.wrong})) for feeds in runs]
    return any(error > tolerance for error in _errors(wanted, found).values())
