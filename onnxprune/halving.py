"""The proof of a whole cut, and, where it fails, of its groups by halves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxprune import proof
from onnxprune.errors import GoalMissed, ModelError
from onnxprune.grouping import Groups, retrace
from onnxprune.labels import Array
from onnxprune.model import Model
from onnxprune.proof import Verdict
from onnxprune.rewrite import rewrite
from onnxprune.selection import gone
from onnxprune.symbols import candidate_sizes, symbolic_dims

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RolledBack:
    """A group that was left whole because its proof failed."""

    group: str
    problem: str


def checked(
    groups: Groups, gone_of: Callable[[Groups], Array], small: Model, *, fixed_sizes: bool = False
) -> tuple[Groups, Verdict]:
    """The proof, and the trace it was made with: other sizes are tried if the original does not run at these."""
    verdict = proof.check(groups, gone_of(groups), small)
    if verdict.runnable or fixed_sizes:
        return groups, verdict
    for sizes, _ in candidate_sizes(symbolic_dims(groups.model.proto.graph), {}):
        if sizes != groups.facts.sizes:
            other = retrace(groups, sizes)
            found = proof.check(other, gone_of(other), small)
            if found.runnable:
                return other, found
    return groups, verdict


def _attempt(groups: Groups, chosen: Mapping[str, Array]) -> Verdict:
    """The proof of some of the groups alone."""
    away = gone(groups, chosen)
    try:
        return proof.check(groups, away, rewrite(groups, away))
    except ModelError as error:
        return Verdict(False, math.nan, proof.tolerance_of(groups), error.message)


def rolled_back_from(
    groups: Groups, chosen: Mapping[str, Array], verdict: Verdict
) -> tuple[dict[str, Array], Model, Verdict, tuple[RolledBack, ...]]:
    """Leave out the groups whose proof fails, found by halving."""
    failed: list[RolledBack] = []

    def search(names: list[str], known: Verdict | None = None) -> None:
        part = {n: chosen[n] for n in names}
        found = known or _attempt(groups, part)
        if found.ok:
            return
        if len(names) == 1:
            failed.append(RolledBack(names[0], found.problem))
            return
        half = len(names) // 2
        search(names[:half])
        search(names[half:])

    search(list(chosen), verdict)
    bad = {f.group for f in failed}
    passed = [n for n in chosen if n not in bad]
    together = _together(groups, {n: chosen[n] for n in passed})
    failed += [RolledBack(n, "its proof fails together with that of other groups") for n in passed[together:]]
    for one in failed:
        logger.warning("group %s is left whole: %s", one.group, one.problem)
    left = {n: chosen[n] for n in passed[:together]}
    if not left:
        raise GoalMissed(f"nothing was pruned, every group failed its proof: {verdict.problem}")
    away = gone(groups, left)
    small = rewrite(groups, away)
    return left, small, proof.check(groups, away, small), tuple(failed)


def _together(groups: Groups, chosen: Mapping[str, Array]) -> int:
    """How many of the groups, from the first, pass the proof together."""
    names = list(chosen)
    low, high = 0, len(names)
    if not names or _attempt(groups, chosen).ok:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if _attempt(groups, {n: chosen[n] for n in names[:middle]}).ok:
            low = middle
        else:
            high = middle
    return low
