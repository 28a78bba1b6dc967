"""Comparison with the original whose removed weights are zero, at sizes at which a trace finds other groups.

A masked reference is made of a trace at the same sizes, and needs the same groups; this one needs none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.errors import RunError
from onnxprune.model import Model
from onnxprune.model.shapes.infer import infer
from onnxprune.proof.compare_outputs import differences
from onnxprune.proof.prove import LONGEST_PROOF, NOISE_CAP, NOISE_MARGIN, tolerance_of
from onnxprune.proof.unmasked import output_noise
from onnxprune.rewriting import Removal, io_changes, zeroed
from onnxprune.runtime import Session, random_feeds


def is_exact(removal: Removal) -> bool:
    """Whether every group that loses units is exact: the smaller model must give what the zeroed original gives."""
    return all(g.exact for g in removal.groups.groups if removal.removed_classes[g.classes].any())


def problem_with_zeros(removal: Removal, small: Model, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with a smaller model at some sizes: that it does not run, or is not the zeroed original.

    Args:
        removal: what went of the traced original.
        small: the smaller model.
        sizes: numbers for the symbolic dims.

    Returns:
        The problem; empty without one; None where there is nothing to compare it with.
    """
    if any(change.kind != "default" for change in io_changes.changes(removal)):
        return None
    flat, tolerance = removal.groups.tracing.model, tolerance_of(removal.groups)
    feeds = random_feeds(flat, infer(flat, sizes), np.random.default_rng(0))
    try:
        with Session(zeroed(removal.groups, removal.removed_classes), limit=LONGEST_PROOF) as original:
            names, wanted = original.outputs, original.run(feeds)
            noise = output_noise(original, feeds, wanted)
    except RunError:
        return None
    try:
        with Session(small, limit=LONGEST_PROOF) as session:
            found = session.run(feeds, names)
    except RunError as error:
        return f"the pruned model does not run: {error.message}"
    for name, apart in differences(names, wanted, found).items() if is_exact(removal) else ():
        if not apart <= min(max(tolerance, NOISE_MARGIN * noise[name]), NOISE_CAP * tolerance):
            return f"output {name!r} differs from the original with zeros by {apart:.1e} (relative)"
    return ""
