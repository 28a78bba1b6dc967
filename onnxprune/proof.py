"""Proof: the pruned model is valid, runs, and equals the masked original."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune import flow, interface
from onnxprune.cut import Cut
from onnxprune.data import random_feeds
from onnxprune.errors import ModelError, OnnxPruneError, RunError
from onnxprune.grouping import Groups
from onnxprune.labels import Array
from onnxprune.model import Model
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
    problem = valid(groups.model, pruned)
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks)
    checks.append("checker and strict shape inference")
    feeds = random_feeds(groups.tracing.model, groups.facts, np.random.default_rng(seed))
    feeds = interface.in_range(cut, feeds)
    try:
        reference = masked(groups, gone)
        verdict = _run(cut, reference, pruned, feeds, checks, seed)
    except RunError as error:
        return _without_reference(groups, feeds, tolerance, checks, error)
    except ModelError as error:
        return Verdict(False, math.nan, tolerance, error.message, checks=checks)
    for path in flow.open_branches(groups.tracing.model.proto.graph, groups.tracing.branch_taken):
        if verdict.ok:
            verdict = _in_branch(cut, path, (reference, pruned), feeds, verdict, seed)
    return verdict


def _in_branch(
    cut: Cut, path: flow.Path, models: tuple[Model, Model], feeds: Mapping[str, np.ndarray], before: Verdict, seed: int
) -> Verdict:
    """The proof again with the conditions changed so that another branch is taken, which the inputs may not reach."""
    reference, pruned = (flow.forced(model, path) for model in models)
    where = f"{path[-1][1]} of If {path[-1][0]!r}"
    if reference is None or pruned is None:
        return before
    try:
        found = _run(cut, reference, pruned, feeds, before.checks, seed)
    except RunError:
        return replace(before, checks=[*before.checks, f"{where} does not run on these inputs"])
    if not found.ok:
        return replace(found, problem=f"{found.problem}, in the {where}")
    errors = {name: max(error, found.outputs[name]) for name, error in before.outputs.items()}
    most = max(before.tolerance, found.tolerance)
    return replace(before, error=max(before.error, found.error), tolerance=most, outputs=errors)


def _run(
    cut: Cut, original: Model, pruned: Model, feeds: Mapping[str, np.ndarray], checks: Sequence[str], seed: int
) -> Verdict:
    """Run both and compare.

    Raises:
        RunError: the reference does not run.
    """
    tolerance = tolerance_of(cut.groups)
    with Session(original) as reference:
        wanted = interface.outputs(cut, reference.outputs, reference.run(feeds))
        try:
            with Session(pruned) as session:
                found = session.run(interface.feeds(cut, feeds), reference.outputs)
        except RunError as error:
            problem = f"the pruned model does not run: {error.message}"
            return Verdict(False, math.nan, tolerance, problem, checks=checks)
        checks = [*checks, "run in ONNX Runtime"]
        names = reference.outputs
        verdict = compare(names, wanted, found, dict.fromkeys(names, tolerance), checks)
        if verdict.ok:
            return verdict
        noise = _noise(cut, reference, feeds, wanted, seed)
    most = NOISE_CAP * tolerance
    allowed = {n: min(max(tolerance, NOISE_MARGIN * noise[n]), most) for n in names}
    return compare(names, wanted, found, allowed, [*checks, "rounding noise of the reference"])


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


def _without_reference(
    groups: Groups,
    feeds: Mapping[str, np.ndarray],
    tolerance: float,
    checks: Sequence[str],
    error: OnnxPruneError,
) -> Verdict:
    """The verdict when the reference does not run: is it the original's fault?"""
    try:
        with Session(groups.model) as session:
            session.run(feeds)
    except RunError as original:
        problem = f"the original does not run either, nothing to compare: {original.message}"
        return Verdict(False, math.nan, tolerance, problem, checks=checks, runnable=False)
    return Verdict(False, math.nan, tolerance, f"the masked reference does not run: {error.message}", checks=checks)


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


def valid(original: Model, pruned: Model) -> str:
    """What the checker or strict shape inference says against `pruned` but not against the original."""
    problem = _complaint(pruned)
    return problem if problem and not _complaint(original) else ""


def _complaint(model: Model) -> str:
    light = without_weights(model.proto)
    try:
        onnx.checker.check_model(light, full_check=True)
        onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        return str(error).strip().splitlines()[0]
    return ""
