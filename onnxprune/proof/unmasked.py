"""Proof of a removal without loss: the smaller model equals the original itself, nothing masked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.errors import ModelError, OnnxPruneError, RunError, UsageError
from onnxprune.model import Model
from onnxprune.model.shapes.infer import infer
from onnxprune.model.shapes.symbols import symbolic_dims
from onnxprune.proof.compare_outputs import difference, differences
from onnxprune.proof.layer_run import NUDGES
from onnxprune.proof.prove import NOISE_CAP, NOISE_MARGIN, tolerance_of
from onnxprune.proof.runnable import hint, inputs_that_run
from onnxprune.proof.validity import has_long_list, too_large, valid
from onnxprune.proof.verdict import Verdict
from onnxprune.runtime import Session, random_feeds
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Feeds, Ranges


@dataclass(frozen=True)
class Trials:
    """What two models are run on to be compared.

    Attributes:
        ranges: graph input -> the least and the largest number that it is given.
        samples: inputs of the user.
        sizes: numbers for symbolic dims that the user fixed.
        seeds: how many random inputs there are of every set of sizes.
        as_written: the runtime tidies up neither graph, so that its optimiser is judged too.
    """

    ranges: Ranges = field(default_factory=dict)
    samples: Sequence[Feeds] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    seeds: int = 3
    as_written: bool = False


def equals(groups: Groups, small: Model, trials: Trials, *, tolerance: float = 0.0) -> Verdict:
    """Prove that a model gives what the original gives.

    Args:
        groups: the traced original.
        small: the smaller model.
        trials: what both are run on.
        tolerance: largest relative difference that is allowed, where that of the float type is less.

    Returns:
        The verdict.

    Raises:
        UsageError: the samples leave the input range.
    """
    allowed = max(tolerance, tolerance_of(groups))
    if problem := too_large(groups):
        return Verdict(False, math.nan, allowed, problem, runnable=False)
    problem = _changed_face(groups.model, small) or valid(groups.model, small, values=not has_long_list(groups))
    if problem:
        return Verdict(False, math.nan, allowed, problem)
    checks = ["inputs and outputs as before", "checker and strict shape inference"]
    verdict = Verdict(True, 0.0, allowed, checks=checks)
    try:
        tidied = not trials.as_written
        with Session(groups.model, optimised=tidied) as original, Session(small, optimised=tidied) as other:
            return _ran(groups, trials, verdict, original, other)
    except UsageError:
        raise
    except OnnxPruneError as error:
        return replace(verdict, ok=False, error=math.nan, problem=error.message)


def _changed_face(original: Model, small: Model) -> str:
    """The first input or output that has another name, type or size; empty without any."""
    for kind in ("input", "output"):
        old, new = (_face(model, kind) for model in (original, small))
        if old != new:
            name = next(name for name in (*old, *new) if old.get(name) != new.get(name))
            return f"{kind} {name!r} is another than before"
    return ""


def _face(model: Model, kind: str) -> dict[str, bytes]:
    """Inputs that are not stored, or outputs: name -> type and sizes."""
    listed = model.proto.graph.input if kind == "input" else model.proto.graph.output
    stored = model.stored - model.overridable if kind == "input" else ()
    return {v.name: v.type.SerializeToString(deterministic=True) for v in listed if v.name not in stored}


def _ran(groups: Groups, trials: Trials, verdict: Verdict, original: Session, other: Session) -> Verdict:
    """The verdict after all runs."""
    drawn = 0
    for feeds, is_drawn in _feeds(groups, trials):
        try:
            wanted = original.run(feeds)
        except RunError as error:
            if is_drawn:
                continue
            return replace(verdict, ok=False, error=math.nan, problem=error.message, runnable=False)
        drawn += is_drawn
        verdict = _compared(verdict, original, feeds, wanted, other)
        if not verdict.ok:
            return verdict
    if not drawn and not trials.samples:
        inputs = inputs_that_run(groups, trials.sizes)
        if inputs is None:
            problem = "the original runs on no inputs that were tried" + hint(groups, trials.sizes)
            return replace(verdict, ok=False, error=math.nan, problem=problem, runnable=False)
        drawn, verdict = 1, _compared(verdict, original, inputs.feeds, original.run(inputs.feeds), other)
    told = (
        [f"the original's outputs on {drawn} random inputs{' of the range' if trials.ranges else ''}"] if drawn else []
    )
    told += [f"the original's outputs on {len(trials.samples)} inputs of the data"] if trials.samples else []
    return replace(verdict, checks=[*verdict.checks, *told])


def _compared(verdict: Verdict, original: Session, feeds: Feeds, wanted: Sequence[object], other: Session) -> Verdict:
    """The verdict after one more run; where it is exceeded, noise of rounding is allowed for."""
    try:
        found = other.run(feeds, original.outputs)
    except RunError as error:
        raise ModelError(f"the smaller model does not run: {error.message}") from error
    outputs = differences(original.outputs, wanted, found)
    for name, apart in outputs.items():
        if apart > verdict.tolerance:
            noise = output_noise(original, feeds, wanted)[name]
            if not apart <= min(max(verdict.tolerance, NOISE_MARGIN * noise), NOISE_CAP * verdict.tolerance):
                problem = f"output {name!r} differs by {apart:.2g} of its largest value"
                return replace(verdict, ok=False, error=apart, problem=problem, outputs=outputs)
    merged = {name: max(apart, verdict.outputs.get(name, 0.0)) for name, apart in outputs.items()}
    return replace(verdict, error=max([verdict.error, *outputs.values()]), outputs=merged)


def output_noise(original: Session, feeds: Feeds, wanted: Sequence[object]) -> Mapping[str, float]:
    """Measure what the outputs move by if every float input moves by about a rounding error.

    Args:
        original: the model.
        feeds: its inputs.
        wanted: its outputs on them.

    Returns:
        Name of an output -> the difference, relative to its largest value.
    """
    nudged = {
        n: (x * (1 + NUDGES[x.dtype.name])).astype(x.dtype) if x.dtype.name in NUDGES else x for n, x in feeds.items()
    }
    return {name: difference(a, b) for name, a, b in zip(original.outputs, wanted, original.run(nudged), strict=True)}


def _feeds(groups: Groups, trials: Trials) -> Iterator[tuple[Feeds, bool]]:
    """Inputs to compare on, and whether they are drawn, by several seeds and of several sizes."""
    for sample in trials.samples:
        _check_range(sample, trials.ranges)
        yield sample, False
    flat, static = groups.tracing.model, groups.static
    free = [symbol for symbol in symbolic_dims(groups.model.proto.graph) if symbol not in trials.sizes]
    for scale in (1, 2) if free else (1,):
        numbers = {s: n * scale + (scale > 1) if s in free else n for s, n in static.sizes.items()}
        known = static if scale == 1 else infer(flat, numbers)
        for seed in range(trials.seeds):
            rng = np.random.default_rng(seed)
            drawn = random_feeds(flat, known, rng)
            yield drawn | {n: _inside(drawn[n], ends, rng) for n, ends in trials.ranges.items() if n in drawn}, True


def _inside(like: Array, ends: tuple[float, float], rng: np.random.Generator) -> Array:
    """Numbers between `ends`, the ends among them, of the shape and type of another array."""
    drawn = rng.uniform(*ends, like.shape)
    drawn[rng.random(like.shape) < 0.1] = ends[0]
    drawn[rng.random(like.shape) < 0.1] = ends[1]
    return np.clip(drawn, *ends).astype(like.dtype)


def _check_range(sample: Feeds, ranges: Ranges) -> None:
    for name, (low, high) in ranges.items():
        if name in sample and sample[name].size and (sample[name].min() < low or sample[name].max() > high):
            raise UsageError(
                f"the data leave the input range: {name!r} goes from {sample[name].min():g} to {sample[name].max():g}",
                hint=f"it was declared to lie between {low:g} and {high:g}",
            )
