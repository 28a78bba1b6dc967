"""Proof: the pruned model is valid, runs, and equals the masked original."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune import flow, interface
from onnxprune.cut import Cut
from onnxprune.data import random_feeds
from onnxprune.errors import ModelError, OnnxPruneError, RunError
from onnxprune.exact import has_roundings, unrounded, unsaturated
from onnxprune.external import item_bits
from onnxprune.grouping import Groups
from onnxprune.labels import Array
from onnxprune.model import Model
from onnxprune.native import killable
from onnxprune.protos import without_weights
from onnxprune.reference import masked
from onnxprune.runtime import Session

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

# A network may amplify rounding (a norm of nearly equal values) or round coarsely (a saturated sigmoid). Where the
# tolerance is exceeded, the reference is run again with inputs nudged by about one rounding error, and that much times
# the margin is allowed, but never more than the cap times the tolerance.
NUDGE = 1e-6
NOISE_DRAWS = 3
NOISE_MARGIN = 10.0
NOISE_CAP = 100.0

# Bytes of one tensor that is computed.
LARGEST_RUN = 1 << 30
LONGEST_LIST = 1 << 20
# Seconds of one run at the small sizes of a proof: a loop may be written to go on for ever.
LONGEST_PROOF = 300.0


@dataclass(frozen=True)
class Verdict:
    """The outcome of a proof.

    Attributes:
        ok: the pruned model is valid, runs, and equals the masked original.
        error: largest relative difference over all outputs; NaN if nothing could be compared.
        tolerance: the largest difference that was allowed on any output.
        problem: what is wrong; empty if nothing is.
        outputs: relative difference per output.
        checks: what was looked at, in order.
        runnable: whether the original itself runs on the inputs that were tried.
    """

    ok: bool
    error: float
    tolerance: float
    problem: str = ""
    outputs: Mapping[str, float] = field(default_factory=dict)
    checks: Sequence[str] = ()
    runnable: bool = True


def check(groups: Groups, gone: Array, pruned: Model, *, seed: int = 0) -> Verdict:
    """Prove `pruned` against the original that `groups` was traced from, without the classes `gone`.

    Args:
        groups: the traced original.
        gone: bool[classes], what was removed.
        pruned: the smaller model.
        seed: of the random inputs.
    """
    tolerance = tolerance_of(groups)
    checks: list[str] = []
    cut = Cut(groups, gone)
    problem = interface.problem(cut, pruned)
    if problem:
        return Verdict(False, math.nan, tolerance, problem)
    changed = interface.changes(cut)
    checks.append("inputs and outputs as planned" if changed else "inputs and outputs as before")
    problem = _too_large(groups)
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks, runnable=False)
    problem = valid(groups.model, pruned, values=not _has_long_list(groups))
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks)
    checks.append("checker and strict shape inference")
    feeds = random_feeds(groups.tracing.model, groups.facts, np.random.default_rng(seed))
    proof = _Proof(cut, pruned, interface.in_range(cut, feeds), seed, tolerance, checks)
    try:
        verdict = proof.verdict(lambda model: model)
    except RunError as error:
        return proof.without_reference(error)
    except ModelError as error:
        return Verdict(False, math.nan, tolerance, error.message, checks=checks)
    for path in flow.open_branches(groups.tracing.model.proto.graph, groups.tracing.branch_taken):
        if verdict.ok:
            verdict = proof.in_branch(path, verdict)
    return verdict


@dataclass(frozen=True)
class _Proof:
    """A pruned model that is compared with the masked original, both changed in the same way."""

    cut: Cut
    pruned: Model
    feeds: Mapping[str, np.ndarray]
    seed: int
    tolerance: float
    checks: list[str]

    @cached_property
    def reference(self) -> Model:
        """The masked original, which variants copy."""
        return masked(self.cut.groups, self.cut.gone)

    def verdict(self, change: Callable[[Model], Model]) -> Verdict:
        """Whether both are equal; where activations are rounded to steps, without that if need be.

        Raises:
            RunError: the reference does not run.
            ModelError: there is none.
        """
        original, dtypes = self.cut.groups.model, self.cut.groups.facts.dtypes
        rounds = has_roundings(original, dtypes)
        verdict = self._equal(lambda model: unsaturated(change(model), original, dtypes), with_noise=not rounds)
        if verdict.ok or not verdict.runnable or not rounds:
            return verdict
        self.checks.append("without the rounding of activations to steps")
        smooth = self._equal(lambda model: unrounded(change(model), original, dtypes))
        return verdict if math.isnan(smooth.error) else smooth

    def in_branch(self, path: flow.Path, before: Verdict) -> Verdict:
        """The proof with the conditions changed so that another branch is taken, which the inputs may not reach."""
        forced = {id(model): flow.forced(model, path) for model in (self.reference, self.pruned)}
        if None in forced.values():
            return before
        where = f"{path[-1][1]} of If {path[-1][0]!r}"
        try:
            found = self.verdict(lambda model: forced[id(model)] or model)
        except RunError:
            return replace(before, checks=[*before.checks, f"{where} does not run on these inputs"])
        if not found.ok:
            return replace(found, problem=f"{found.problem}, in the {where}")
        errors = {name: max(error, found.outputs[name]) for name, error in before.outputs.items()}
        most = max(before.tolerance, found.tolerance)
        return replace(before, error=max(before.error, found.error), tolerance=most, outputs=errors)

    def _equal(self, variant: Callable[[Model], Model], *, with_noise: bool = True) -> Verdict:
        """Compare the pruned model with the masked original, both in the same variant."""
        with Session(variant(self.reference), limit=LONGEST_PROOF) as reference:
            wanted = interface.outputs(self.cut, reference.outputs, reference.run(self.feeds))
            try:
                found = self._results(variant, reference.outputs)
            except RunError as error:
                problem = f"the pruned model does not run: {error.message}"
                return Verdict(False, math.nan, self.tolerance, problem, checks=self.checks)
            names = reference.outputs
            verdict = compare(names, wanted, found, dict.fromkeys(names, self.tolerance), self.checks)
            if verdict.ok or not with_noise:
                return verdict
            noise = _noise(self.cut, reference, self.feeds, wanted, self.seed)
        most = NOISE_CAP * self.tolerance
        allowed = {n: min(max(self.tolerance, NOISE_MARGIN * noise[n]), most) for n in names}
        return compare(names, wanted, found, allowed, [*self.checks, "rounding noise of the reference"])

    def _results(self, variant: Callable[[Model], Model], names: Sequence[str]) -> list[object]:
        """The outputs of the variant of the pruned model; itself must run too."""
        model, feeds = variant(self.pruned), interface.feeds(self.cut, self.feeds)
        if "run in ONNX Runtime" not in self.checks:
            with Session(self.pruned, limit=LONGEST_PROOF) as session:
                found = session.run(feeds, names)
            self.checks.append("run in ONNX Runtime")
            if model is self.pruned:
                return found
        with Session(model, limit=LONGEST_PROOF) as session:
            return session.run(feeds, names)

    def without_reference(self, error: OnnxPruneError) -> Verdict:
        """The verdict when the reference does not run: is it the original's fault?"""
        try:
            with Session(self.cut.groups.model, limit=LONGEST_PROOF) as session:
                session.run(self.feeds)
        except RunError as original:
            problem = f"the original does not run either, nothing to compare: {original.message}"
            return Verdict(False, math.nan, self.tolerance, problem, checks=self.checks, runnable=False)
        problem = f"the masked reference does not run: {error.message}"
        return Verdict(False, math.nan, self.tolerance, problem, checks=self.checks)


def _too_large(groups: Groups) -> str:
    """What in the graph is too large to be run; a file of some bytes may ask for terabytes."""
    facts, stored = groups.facts, groups.tracing.model.initializers
    for name, shape in facts.shapes.items():
        bits = item_bits(facts.dtypes.get(name) or TensorProto.FLOAT)
        if math.prod(shape) * bits > 8 * LARGEST_RUN and name not in stored:
            return f"tensor {name!r} of shape {list(shape)} is too large to be run: smaller --sizes may help"
    return ""


def _noise(
    cut: Cut, reference: Session, feeds: Mapping[str, np.ndarray], wanted: Sequence[object], seed: int
) -> dict[str, float]:
    """How far the reference's own outputs move when its float inputs move by a rounding error: per output."""
    rng = np.random.default_rng([seed, 1])
    moved = dict.fromkeys(reference.outputs, 0.0)
    for _ in range(NOISE_DRAWS):
        nudged = {
            name: (x * (1 + NUDGE * rng.uniform(-1, 1, x.shape))).astype(x.dtype) if x.dtype.kind == "f" else x
            for name, x in feeds.items()
        }
        again = interface.outputs(cut, reference.outputs, reference.run(nudged))
        for name, a, b in zip(reference.outputs, wanted, again, strict=True):
            moved[name] = max(moved[name], difference(a, b))
    return moved


def tolerance_of(groups: Groups) -> float:
    """The tolerance for the least precise float type among the model's weights and activations."""
    dtypes = {groups.facts.dtypes.get(name, 0) for name in groups.tracing.axes}
    return max((TOLERANCES[d] for d in dtypes if d in TOLERANCES), default=TOLERANCES[TensorProto.FLOAT])


def compare(
    names: Sequence[str],
    wanted: Sequence[object],
    found: Sequence[object],
    allowed: Mapping[str, float],
    checks: Sequence[str],
) -> Verdict:
    """Compare outputs: floats by relative difference, everything else by the share of unequal elements.

    An integer output is computed from floats (an argmax), so the same share may differ as floats may by their size.
    """
    errors = {name: difference(a, b) for name, a, b in zip(names, wanted, found, strict=True)}
    wrong = [name for name in names if not errors[name] <= allowed[name]]
    problem = ""
    if not any(np.asarray(a, object).size for a in wanted):
        return Verdict(False, math.nan, max(allowed.values(), default=0.0), "all outputs are empty", errors, checks)
    if wrong:
        problem = f"output {wrong[0]!r} differs from the masked original by {errors[wrong[0]]:.1e} (relative)"
    else:
        checks = [*checks, "equal to the masked original"]
    worst, most = max(errors.values(), default=0.0), max(allowed.values(), default=0.0)
    return Verdict(not wrong, worst, most, problem, errors, checks)


def difference(wanted: object, found: object) -> float:
    """How far two outputs are apart.

    Largest |difference| over largest |wanted| for floats, the share of unequal elements for other types; the largest
    over all elements of a sequence or map. Infinite where shapes, lengths, keys or non-finite values differ.
    """
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        if wanted.keys() != found.keys():
            return math.inf
        return difference(np.asarray(list(wanted.values())), np.asarray([found[k] for k in wanted]))
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return math.inf
        return max((difference(a, b) for a, b in zip(wanted, found, strict=True)), default=0.0)
    left, right = np.asarray(wanted), np.asarray(found)
    if left.shape != right.shape:
        return math.inf
    if left.dtype.kind not in "fV" and left.dtype.name != "bfloat16":
        return float(np.mean(left != right)) if left.size else 0.0
    a, b = left.astype(np.float64), right.astype(np.float64)
    odd = ~np.isfinite(a)
    if (odd != ~np.isfinite(b)).any() or not np.array_equal(a[odd], b[odd], equal_nan=True):
        return math.inf
    a, b = a[~odd], b[~odd]
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) if a.size else 0.0


def _has_long_list(groups: Groups) -> bool:
    """Whether the graph makes a list that onnx, which follows values of lists, would unfold in memory."""
    shapes, stored = groups.facts.shapes, groups.model.initializers
    return any(len(shape) == 1 and shape[0] > LONGEST_LIST and name not in stored for name, shape in shapes.items())


def valid(original: Model, pruned: Model, *, values: bool = True) -> str:
    """What the checker or strict shape inference says against `pruned` but not against the original.

    Args:
        original: the model before.
        pruned: the model after.
        values: follow the values of sizes and indices too.
    """
    problem = _complaint(pruned, values)
    return problem if problem and not _complaint(original, values) else ""


def _complaint(model: Model, values: bool) -> str:
    light = without_weights(model.proto)
    try:
        with killable():
            onnx.checker.check_model(light, full_check=True)
            onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=values)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        return str(error).strip().splitlines()[0]
    return ""
