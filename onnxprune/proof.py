"""Proof: the pruned model is valid, runs, and equals the masked original."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.data import random_feeds
from onnxprune.errors import OnnxPruneError, RunError
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


@dataclass(frozen=True)
class Verdict:
    """The outcome of a proof.

    Attributes:
        ok: the pruned model is valid, runs, and equals the masked original.
        error: largest relative difference over all outputs; NaN if nothing could be compared.
        tolerance: what was allowed.
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
    problem = _interface(groups.model, pruned)
    if problem:
        return Verdict(False, math.nan, tolerance, problem)
    checks.append("inputs and outputs as before")
    problem = valid(groups.model, pruned)
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks)
    checks.append("checker and strict shape inference")
    feeds = random_feeds(groups.model, groups.facts, np.random.default_rng(seed))
    try:
        with Session(masked(groups, gone)) as session:
            wanted = session.run(feeds)
            names = session.outputs
    except RunError as error:
        return _without_reference(groups, feeds, tolerance, checks, error)
    try:
        with Session(pruned) as session:
            found = session.run(feeds, names)
    except RunError as error:
        return Verdict(False, math.nan, tolerance, f"the pruned model does not run: {error.message}", checks=checks)
    checks.append("run in ONNX Runtime")
    return compare(names, wanted, found, tolerance, checks)


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
    tolerance: float,
    checks: Sequence[str],
) -> Verdict:
    """Compare outputs: floats by relative difference, everything else exactly."""
    errors: dict[str, float] = {}
    problem = ""
    for name, a, b in zip(names, wanted, found, strict=True):
        left, right = np.asarray(a), np.asarray(b)
        if left.shape != right.shape:
            problem = problem or f"output {name!r} has shape {list(right.shape)}, not {list(left.shape)}"
            errors[name] = math.inf
            continue
        errors[name] = difference(left, right)
        if not errors[name] <= tolerance:
            problem = problem or f"output {name!r} differs from the masked original by {errors[name]:.1e} (relative)"
    worst = max(errors.values(), default=0.0)
    return Verdict(
        not problem,
        worst,
        tolerance,
        problem,
        errors,
        [*checks, "equal to the masked original"] if not problem else checks,
    )


def difference(wanted: np.ndarray, found: np.ndarray) -> float:
    """Largest |difference| over largest |wanted|; for other types than floats, the share of unequal elements."""
    if wanted.dtype.kind not in "fV" and wanted.dtype.name != "bfloat16":
        return float(np.mean(wanted != found)) if wanted.size else 0.0
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    if not a.size:
        return 0.0
    odd = ~np.isfinite(a)
    if (odd != ~np.isfinite(b)).any() or not np.array_equal(a[odd], b[odd], equal_nan=True):
        return math.inf
    a, b = a[~odd], b[~odd]
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) if a.size else 0.0


def _interface(original: Model, pruned: Model) -> str:
    for kind in ("input", "output"):
        weights = [{t.name for t in m.proto.graph.initializer} for m in (original, pruned)]
        sides = [
            [v.SerializeToString(deterministic=True) for v in getattr(m.proto.graph, kind) if v.name not in w]
            for m, w in zip((original, pruned), weights, strict=True)
        ]
        if sides[0] != sides[1]:
            return f"the graph {kind}s changed"
    return ""


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
