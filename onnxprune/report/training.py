"""The account of a training run, as text and as data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.recovery import Training


def training_data(of: Training) -> dict[str, Any]:
    """What training did, for `--json`."""
    plain = asdict(of)
    found = [{"rate": rate, "held": _number(loss)} for rate, loss in of.found.items()]
    course = [{"step": j.step, "loss": _number(j.loss), "held": _number(j.held)} for j in of.course]
    ends = {"before": _number(of.before), "after": _number(of.after)}
    told = {"found": found, "course": course, "blocked": dict(of.blocked), "seconds": round(of.seconds, 3)}
    return plain | ends | told


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def training_lines(of: Outcome) -> list[tuple[str, str]]:
    """All training of a pruned model, in its order: names of lines, and what there is to say."""
    lines = [*choosing_entries(of.chosen), *training_entries(of.training)]
    if not of.tuned:
        return lines
    known = of.judged is not None and of.judged.is_known
    agreed = f"; {of.judged.sqnr:.1f} dB on held-out samples" if of.judged is not None and known else ""
    return [*lines, ("trained", f"by {of.tuned}{agreed}")]


def choosing_entries(of: Training | None) -> list[tuple[str, str]]:
    """What was chosen while training, before the model was cut: names of lines, and what there is to say."""
    if of is None:
        return []
    said = f"in {of.steps} steps, learning rate {of.rate:g}"
    return [("chosen", f"{said}; held out {of.before:.4g} with the first choice, {of.after:.4g} with the last one")]


def training_entries(of: Training | None) -> list[tuple[str, str]]:
    """What training did, in the order in which it was done: names of lines, and what there is to say."""
    if of is None:
        return []
    chosen = f", by {len(of.found)} short trials" if of.found else ""
    skipped = f", {of.skipped} skipped (the loss was not finite)" if of.skipped else ""
    lines = [
        ("trained", f"{of.trained:,} weights on {of.samples} samples, {of.held} others judge"),
        ("steps", f"{of.steps} with {of.loss}, learning rate {of.rate:g}{chosen}{skipped}"),
    ]
    if of.blocked:
        first = next(iter(of.blocked))
        lines.append(("frozen", f"{len(of.blocked)} weights without a gradient: {first} ({of.blocked[first]})"))
    if not of.best:
        return [*lines, ("held out", f"{of.before:.4g}, and no step made it less: the weights are as they were")]
    change = f" ({of.after / of.before - 1:+.1%})" if of.before > 0 else ""
    return [*lines, ("held out", f"{of.before:.4g} -> {of.after:.4g}{change}, best after {of.best} steps")]
