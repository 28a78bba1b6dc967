"""The outcome of a proof."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.proof.compare_outputs import differences
from onnxprune.proof.strength import Strength


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
        inside: relative difference per tensor that a layer gives, from the masked original's values in front of it.
        wrong: what differs, in graph order -> the groups that may be the cause; empty where none is known.
        strength: how many of a sample of wrong weights would have been noticed; None where none were tried.
        feeds: the inputs of its runs; None where they are drawn at random.
    """

    ok: bool
    error: float
    tolerance: float
    problem: str = ""
    outputs: Mapping[str, float] = field(default_factory=dict)
    checks: Sequence[str] = ()
    runnable: bool = True
    inside: Mapping[str, float] = field(default_factory=dict)
    wrong: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strength: Strength | None = None
    feeds: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def with_run(self, found: Verdict) -> Verdict:
        """The verdict together with that of another run, which holds, too: on another way, or at other sizes."""
        errors = {name: max(error, found.outputs[name]) for name, error in self.outputs.items()}
        layers = {**found.inside, **self.inside}
        inside = {name: max(error, found.inside.get(name, 0.0)) for name, error in layers.items()}
        strength = self.strength and found.strength and self.strength.with_run(found.strength)
        return replace(
            self,
            error=max(self.error, found.error),
            tolerance=max(self.tolerance, found.tolerance),
            outputs=errors,
            inside=inside,
            strength=strength or self.strength or found.strength,
        )

    @property
    def blind(self) -> bool:
        """Whether weights were tried, and no wrong one would have been noticed."""
        return self.strength is not None and self.strength.tried > 0 and not self.strength.noticed


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
    errors = differences(names, wanted, found)
    wrong = [name for name in names if not errors[name] <= allowed[name]]
    problem = ""
    if not any(np.asarray(a, object).size for a in wanted):
        return Verdict(
            False, math.nan, max(allowed.values(), default=0.0), "all outputs are empty", outputs=errors, checks=checks
        )
    if wrong:
        problem = f"output {wrong[0]!r} differs from the masked original by {errors[wrong[0]]:.1e} (relative)"
    else:
        checks = [*checks, "equal to the masked original"]
    worst, most = max(errors.values(), default=0.0), max(allowed.values(), default=0.0)
    return Verdict(not wrong, worst, most, problem, outputs=errors, checks=checks)


def of_errors(errors: Mapping[str, float], tolerance: float, checks: Sequence[str], reference: str) -> Verdict:
    """The verdict on outputs that were compared with those of a reference.

    Args:
        errors: relative difference per output.
        tolerance: the largest that is allowed.
        checks: what was looked at before.
        reference: what the outputs must equal, as the verdict says it.
    """
    worst = max(errors.values(), default=0.0)
    if worst <= tolerance:
        return Verdict(True, worst, tolerance, outputs=errors, checks=[*checks, f"equal to {reference}"])
    name = max(errors, key=errors.__getitem__)
    problem = f"output {name!r} differs from {reference} by {errors[name]:.1e} (relative)"
    return Verdict(False, worst, tolerance, problem, outputs=errors, checks=checks)
