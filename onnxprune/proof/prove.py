"""Proof: the pruned model is valid, runs, and equals the masked original, at its outputs and layer by layer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from onnx import TensorProto

from onnxprune.errors import ModelError, OnnxPruneError, RunError
from onnxprune.model import Model, control_flow, unsaturated
from onnxprune.model.control_flow import Path
from onnxprune.proof import layerwise as inside
from onnxprune.proof import stored_weights
from onnxprune.proof import strength as strengths
from onnxprune.proof.in_place import Bodies, SameWay
from onnxprune.proof.layer_run import LayerRun
from onnxprune.proof.layerwise import Layers
from onnxprune.proof.masked import flat_masked
from onnxprune.proof.quantized import has_roundings, unrounded
from onnxprune.proof.strength import Strength
from onnxprune.proof.validity import has_long_list, too_large, valid
from onnxprune.proof.verdict import Verdict, compare
from onnxprune.rewriting import Removal, io_changes
from onnxprune.runtime import Session, check_run, random_feeds
from onnxprune.tracing import Groups
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

# Largest |difference| over largest |reference| of an output. Both models compute the same sums in another order:
# a float32 sum of 10^4 terms is good to about 1e-6, and some hundred layers amplify that by up to 10^2. The other
# types scale with their unit roundoff (float16 2^-11, bfloat16 2^-8, float64 2^-53, float32 2^-24).
TOLERANCES: Mapping[int, float] = {
    TensorProto.FLOAT: 1e-4,
    TensorProto.FLOAT16: 3e-2,
    TensorProto.BFLOAT16: 1e-1,
    TensorProto.DOUBLE: 1e-9,
}

# A layer may amplify rounding (a norm of nearly equal values, a sum that cancels). Where the tolerance is exceeded,
# what every layer reads is nudged by about one rounding error, and what moves by that much times the margin is allowed.
# For what is no layer's, as an output behind a function that jumps, never more than the cap times the tolerance.
# A layer alone adds up little rounding: its tolerance is that of the outputs, divided by SHARPER.
SHARPER = 10.0
NOISE_MARGIN = 10.0
# A result in float16 is good to a step of 2^-10 at most, and what reads it is nudged by one: that hides little else.
HALF_LAYER = 1.5e-3
HALF_MARGIN = 2.0
NOISE_CAP = 100.0

# Seconds of one run at the small sizes of a proof: a loop may be written to go on for ever.
LONGEST_PROOF = 300.0
# What was looked at, as the checks of a verdict say it.
RUNS = "run in ONNX Runtime"
UNOPTIMISED = "the original without ONNX Runtime's optimiser, which fails on it"
WHOLE_LOOPS = "a loop as a whole"
# Groups that a problem names.
MOST_NAMED = 3


def check(
    groups: Groups, removed: Array, pruned: Model, *, seed: int = 0, feeds: Mapping[str, np.ndarray] | None = None
) -> Verdict:
    """Prove `pruned` against the original that `groups` was traced from, without the classes `removed`.

    Args:
        groups: the traced original.
        removed: bool[classes], what was removed.
        pruned: the smaller model.
        seed: of the random inputs.
        feeds: other inputs, of the sizes of the trace.
    """
    tolerance = tolerance_of(groups)
    removal = Removal(groups, removed)
    checks, problem = as_declared(removal, pruned)
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks)
    if problem := too_large(groups):
        return Verdict(False, math.nan, tolerance, problem, checks=checks, runnable=False)
    feeds = feeds or random_feeds(groups.tracing.model, groups.static, np.random.default_rng(seed))
    feeds = io_changes.in_range(removal, feeds)
    try:
        bodies = Bodies(removal, flat_masked(groups, removed), pruned)
        way, others = bodies.usual(feeds, LONGEST_PROOF)
        proof = _Proof(removal, way=way, feeds=feeds, seed=seed, tolerance=tolerance, checks=checks)
        verdict = proof.verdict()
    except RunError as error:
        return without_reference(removal, feeds, checks, error)
    except ModelError as error:
        return Verdict(False, math.nan, tolerance, error.message, checks=checks)
    for paths in control_flow.together(others):
        if verdict.ok:
            verdict = proof.in_branches(bodies, paths, verdict)
    return proof.with_weights(pruned, verdict) if verdict.ok else verdict


def as_declared(removal: Removal, pruned: Model) -> tuple[list[str], str]:
    """What a model says of itself, without a run: what was looked at, and what is wrong.

    Args:
        removal: what goes.
        pruned: the smaller model.
    """
    if problem := io_changes.problem(removal, pruned):
        return [], problem
    checks = [f"inputs and outputs as {'planned' if io_changes.changes(removal) else 'before'}"]
    if problem := valid(removal.groups.model, pruned, values=not has_long_list(removal.groups)):
        return checks, problem
    return [*checks, "checker and strict shape inference"], ""


@dataclass(frozen=True)
class _Proof:
    """A pruned model that is compared with the masked original, both changed in the same way."""

    removal: Removal
    way: SameWay
    feeds: Mapping[str, np.ndarray]
    seed: int
    tolerance: float
    checks: list[str]

    def verdict(self) -> Verdict:
        """Compare the models; loops as a whole, and without rounding to steps, if need be.

        Raises:
            RunError: the reference does not run.
        """
        way = self.way
        while way.given:
            try:
                return replace(self, way=way)._verdict()
            except RunError as error:
                logger.debug("not compared inside of all loops: %s", error.message)
                way = replace(way, into=max(way.depths.values()) - 1)
        return replace(self, way=replace(way, into=0))._verdict()

    def _verdict(self) -> Verdict:
        """The same for loops that are looked into, or not."""
        if self.way.leaves_loops and WHOLE_LOOPS not in self.checks:
            self.checks.append(WHOLE_LOOPS)
        original, dtypes = self.removal.groups.model, self.removal.groups.static.dtypes
        rounds = has_roundings(original, dtypes)
        verdict = self._equal(lambda model: unsaturated(model, dtypes), with_noise=not rounds)
        if verdict.ok or not verdict.runnable or not rounds:
            return verdict
        self.checks.append("without the rounding of activations to steps")
        smooth = self._equal(lambda model: unrounded(model, original, dtypes))
        return verdict if math.isnan(smooth.error) else smooth

    def in_branches(self, bodies: Bodies, paths: Sequence[Path], before: Verdict) -> Verdict:
        """Prove the models with conditions changed so that they take branches that the inputs may not reach.

        No inputs of the original may lead there, so nobody knows what the runtime makes of it: it is tried elsewhere.
        Where it fails, or what comes out differs, half of the branches is taken.
        """
        where = " and ".join(f"{path[-1][1]} of If {path[-1][0]!r}" for path in paths)
        way, reference = bodies.in_branches(paths), bodies.forced_reference(paths)
        found = None
        if way is not None and reference is not None:
            try:
                check_run(reference, self.feeds, LONGEST_PROOF)
                found = replace(self, way=way).verdict()
            except RunError as error:
                logger.debug("%s: %s", where, error.message)
                if len(paths) == 1:
                    *others, equal = before.checks
                    return replace(before, checks=[*others, f"{where} does not run on these inputs", equal])
        if found is not None and found.ok:
            return before.with_run(found)
        if len(paths) > 1:
            half = len(paths) // 2
            first = self.in_branches(bodies, paths[:half], before)
            return self.in_branches(bodies, paths[half:], first) if first.ok else first
        return before if found is None else replace(found, problem=f"{found.problem}, in the {where}")

    @cached_property
    def optimised(self) -> bool:
        """Whether the runtime may tidy up graphs whose inner tensors are looked at.

        It moves the steps of a QuantizeLinear in front of what comes before, also where that is an output.
        """
        return all(node.op_type != "QuantizeLinear" for node in self.removal.groups.tracing.model.proto.graph.node)

    @property
    def is_half(self) -> bool:
        """Whether float16 is the least precise type."""
        return self.tolerance == TOLERANCES[TensorProto.FLOAT16]

    @property
    def layer_tolerance(self) -> float:
        """The largest difference that is allowed on what a layer gives."""
        return HALF_LAYER if self.is_half else self.tolerance / SHARPER

    @cached_property
    def layers(self) -> Layers:
        """What is compared inside."""
        return inside.layers(self.removal, self.way.common, self.way.depths)

    def with_weights(self, pruned: Model, verdict: Verdict) -> Verdict:
        """The verdict after the stored weights were looked at, which no input makes react."""
        found = stored_weights.weights(self.removal, pruned)
        if found.problem:
            wrong = {found.wrong: found.groups}
            return replace(verdict, ok=False, problem=found.problem, checks=verdict.checks, wrong=wrong)
        *others, equal = verdict.checks
        if verdict.inside:
            others.append(f"{len(verdict.inside)} layers equal to the masked original's")
        return replace(verdict, checks=[*others, f"{found.count} weights bit for bit", equal])

    def _equal(self, variant: Callable[[Model], Model], *, with_noise: bool = True) -> Verdict:
        """Compare the same variant of the models; one variant is in memory at a time."""
        wanted, names = self._wanted(variant)
        try:
            found = self._results(variant(self.way.pruned), names)
        except RunError as error:
            problem = f"the pruned model does not run: {error.message}"
            return Verdict(False, math.nan, self.tolerance, problem, checks=self.checks)
        across = compare(names, [wanted[n] for n in names], found, dict.fromkeys(names, self.tolerance), self.checks)
        if math.isnan(across.error):
            return across
        inner = variant(self.way.inner)
        try:
            return self._by_layers(inner, self.layers.tensors, wanted, across, with_noise=with_noise)
        except RunError as error:
            if self.way.given:
                raise
            logger.debug("not compared inside: %s", error.message)
            return self._by_layers(inner, [], wanted, across, with_noise=with_noise)

    def _wanted(self, variant: Callable[[Model], Model]) -> tuple[dict[str, object], list[str]]:
        """What the pruned model must give: for its outputs, whose names come too, and for what is looked at inside."""
        names = [o.name for o in self.way.pruned.proto.graph.output]
        tensors = list(dict.fromkeys([*names, *self.layers.tensors, *self.way.given]))
        model = variant(self.way.reference(tensors))
        with Session(model, optimised=self.optimised, limit=LONGEST_PROOF) as session:
            if session.optimiser_failed and UNOPTIMISED not in self.checks:
                self.checks.append(UNOPTIMISED)
            found = dict(zip(tensors, session.run(self.feeds, tensors), strict=True))
        for name in self.way.depths.keys() & found.keys():
            for _ in range(self.way.depths[name]):
                if not len(found[name]):
                    raise RunError("a loop makes no step on these inputs")
                found[name] = found[name][-1]
        return dict(zip(tensors, io_changes.outputs(self.removal, tensors, list(found.values())), strict=True)), names

    def _results(self, model: Model, names: Sequence[str]) -> list[object]:
        """The outputs of a variant of the pruned model; itself must run too."""
        feeds = io_changes.feeds(self.removal, self.feeds)
        if RUNS not in self.checks:
            with Session(self.way.pruned, limit=LONGEST_PROOF) as session:
                if session.optimiser_failed and not self._optimiser_fails_on_the_original():
                    raise RunError("ONNX Runtime's optimiser fails on it, and not on the original")
                found = session.run(feeds, names)
            self.checks.append(RUNS)
            if model is self.way.pruned:
                return found
        with Session(model, limit=LONGEST_PROOF) as session:
            return session.run(feeds, names)

    def _optimiser_fails_on_the_original(self) -> bool:
        with Session(self.removal.groups.model) as session:
            return session.optimiser_failed

    def _by_layers(
        self, pruned: Model, tensors: Sequence[str], wanted: Mapping[str, object], across: Verdict, *, with_noise: bool
    ) -> Verdict:
        """The verdict when every layer is compared on what the masked original gives in front of it.

        Args:
            pruned: the smaller model.
            tensors: what layers give.
            wanted: what they and the outputs must be.
            across: the verdict on the outputs from end to end.
            with_noise: allow what rounding becomes in a layer.
        """
        layered = inside.layered(self.removal, pruned, tensors, self.way.given)
        samples = strengths.samples(self.removal, layered, self.seed)
        run = LayerRun(self.removal, self.feeds, wanted, layered, samples)
        with Session(run.model, optimised=self.optimised, limit=LONGEST_PROOF) as session:
            errors = run.errors(session, run.given)
            own = {n: self.layer_tolerance if n in layered.made else self.tolerance for n in errors}
            allowed = dict(own)
            beyond = [name for name in errors if not errors[name] <= own[name]]
            if with_noise and beyond:
                noise = run.noise(session, self.seed)
                margin = HALF_MARGIN if self.is_half else NOISE_MARGIN
                for name in beyond:
                    most = math.inf if name in layered.made else NOISE_CAP * self.tolerance
                    allowed[name] = min(max(own[name], margin * noise[name]), most)
            noticed = run.strength(session, allowed) if samples else None
        return self._judged(errors, allowed, across, noticed)

    def _judged(
        self, errors: Mapping[str, float], allowed: Mapping[str, float], across: Verdict, noticed: Strength | None
    ) -> Verdict:
        """The verdict on errors of layers and outputs."""
        layers = {name: errors[name] for name in self.layers.tensors if name in errors}
        wrong = [n for n in dict.fromkeys([*layers, *errors]) if not errors[n] <= allowed[n]]
        told = replace(across, inside=layers, strength=noticed)
        if wrong:
            return self._refused(wrong, errors, told)
        most = max(self.tolerance, *(allowed[name] for name in across.outputs))
        checks = list(self.checks)
        if any(a > self.tolerance for a in allowed.values()):
            checks.append("what rounding becomes")
        if across.ok:
            return replace(told, tolerance=most, checks=[*checks, "equal to the masked original"])
        outputs = {name: errors[name] for name in across.outputs}
        checks += ["outputs that amplify rounding from the layers before", "equal to the masked original"]
        return replace(
            told, ok=True, problem="", error=max(outputs.values()), tolerance=most, outputs=outputs, checks=checks
        )

    def _refused(self, wrong: Sequence[str], errors: Mapping[str, float], told: Verdict) -> Verdict:
        """The verdict on a model that differs."""
        causes = {name: tuple(self.layers.groups_behind(name)) for name in wrong}
        first = wrong[0]
        problem = told.problem or f"output {first!r} differs from the masked original by {errors[first]:.1e} (relative)"
        if first in told.inside:
            view = self.layers.views[first]
            by = f"{view.node.op_type} {view.name!r} differs from the masked original by {errors[first]:.1e} (relative)"
            groups = ", ".join(causes[first][:MOST_NAMED])
            problem = f"{first!r} of {by}" + (f", cut with {groups}" if groups else "")
        worst = max(told.error, *(errors[name] for name in wrong))
        return replace(told, ok=False, error=worst, problem=problem, wrong=causes)


def without_reference(
    removal: Removal, feeds: Mapping[str, np.ndarray], checks: Sequence[str], error: OnnxPruneError
) -> Verdict:
    """The verdict when the reference does not run: is it the original's fault?"""
    tolerance = tolerance_of(removal.groups)
    try:
        with Session(removal.groups.model, limit=LONGEST_PROOF) as session:
            session.run(feeds)
    except RunError as original:
        problem = f"the original does not run either, nothing to compare: {original.message}"
        return Verdict(False, math.nan, tolerance, problem, checks=checks, runnable=False)
    problem = f"the masked reference does not run: {error.message}"
    return Verdict(False, math.nan, tolerance, problem, checks=checks)


def tolerance_of(groups: Groups) -> float:
    """The tolerance for the least precise float type among the model's weights and activations."""
    dtypes = {groups.static.dtypes.get(name, 0) for name in groups.tracing.axes}
    return max((TOLERANCES[d] for d in dtypes if d in TOLERANCES), default=TOLERANCES[TensorProto.FLOAT])
