"""The proof of a whole removal and, if it fails, a search for the groups that cause it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxprune.errors import GoalMissed, ModelError
from onnxprune.model import Model, other_sides
from onnxprune.model.shapes.symbols import symbolic_dims
from onnxprune.proof import prove
from onnxprune.proof.runnable import hint, inputs_that_run, may_be_batch
from onnxprune.proof.smaller_inputs import LARGE_RUN, elements_of_a_run, is_as_sized, smaller_inputs, with_inputs
from onnxprune.proof.verdict import Verdict
from onnxprune.proof.zeroed_original import is_exact, problem_with_zeros
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups, retrace
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

# Factors for dynamic sizes, in turn: the first of which the original runs is taken.
LONGER = (8, 4, 2)


@dataclass(frozen=True)
class RolledBack:
    """A group that was left whole because its proof failed."""

    group: str
    problem: str


def proven_groups(
    groups: Groups,
    gone_of: Callable[[Groups], Array],
    small: Model,
    *,
    given: Mapping[str, int] | None = None,
    samples: Sequence[Mapping[str, Array]] = (),
) -> tuple[Groups, Verdict]:
    """Prove a smaller model, at other inputs if the original does not run on those of the trace.

    Where the graph compares or clamps its sizes, the proof is repeated at sizes on the other sides; where it notices
    few wrong weights, at longer inputs. Where the graph fixes large inputs that nothing else in it asks for, smaller
    ones are taken.

    Args:
        groups: the traced original.
        gone_of: what is removed of a trace.
        small: the smaller model.
        given: numbers for symbolic dims that the user fixed.
        samples: the user's own inputs; the proof runs on them where the original does not on random ones.

    Returns:
        (the trace that the proof was made with, the proof).
    """
    given = given or {}
    removal = Removal(groups, gone_of(groups))
    smaller = _at_smaller_inputs(removal, gone_of, small, given)
    if smaller is not None:
        return groups, smaller
    verdict = prove.check(groups, removal.removed_classes, small)
    if not verdict.ok and not verdict.runnable:
        inputs = inputs_that_run(groups, given, samples)
        if inputs is None:
            return groups, replace(verdict, problem=verdict.problem + hint(groups, given))
        groups = retrace(groups, inputs.sizes)
        verdict = replace(prove.check(groups, gone_of(groups), small, feeds=inputs.feeds), feeds=inputs.feeds)
    if not verdict.ok:
        return groups, verdict
    other, found = _on_other_sides(groups, gone_of, small, verdict, given)
    return _at_longer_inputs(groups, gone_of, small, found, given) if found.ok else (other, found)


def _at_smaller_inputs(
    removal: Removal, gone_of: Callable[[Groups], Array], small: Model, given: Mapping[str, int]
) -> Verdict | None:
    """The proof at smaller sizes of the inputs; None where there are none, or it fails there."""
    found = smaller_inputs(removal)
    if found is None or prove.as_declared(removal, small)[1] or not is_as_sized(removal, small):
        return None
    other, sizes = found
    resized = with_inputs(small, sizes)
    verdict = prove.check(other, gone_of(other), resized)
    if verdict.ok:
        verdict = _on_other_sides(other, gone_of, resized, verdict, given)[1]
    if not verdict.ok:
        logger.debug("not proven at smaller sizes of the inputs: %s", verdict.problem)
        return None
    *others, equal = verdict.checks
    said = (f"at {name}: {'x'.join(map(str, shape))}" for name, shape in sizes.items())
    return replace(verdict, checks=[*others, *said, equal])


def _on_other_sides(
    groups: Groups, gone_of: Callable[[Groups], Array], small: Model, verdict: Verdict, given: Mapping[str, int]
) -> tuple[Groups, Verdict]:
    """The proof at sizes where comparisons of sizes come out otherwise; the first one that fails, if any does.

    Its checks say at which sizes it ran, and at which it did not.
    """
    graph, stored = groups.model.proto.graph, groups.model.initializers
    shapes = groups.static.shapes
    inputs = {v.name: shapes[v.name] for v in graph.input if v.name in shapes and v.name not in stored}
    sides = other_sides(groups.static, inputs)
    for sizes in sides.tried:
        numbers = ", ".join(f"{s}={n}" for s, n in sizes.items() if n != groups.static.sizes[s])
        if any(sizes[symbol] != number for symbol, number in given.items() if symbol in sizes):
            verdict = _also(verdict, f"not at {numbers}: another size is given")
            continue
        other = retrace(groups, sizes)
        if [(g.name, g.units) for g in other.groups] != [(g.name, g.units) for g in groups.groups]:
            removal = Removal(groups, gone_of(groups))
            problem = problem_with_zeros(removal, small, sizes)
            if problem:
                return groups, replace(verdict, ok=False, problem=f"{problem}, at {numbers}")
            how = "against the original with zeros" if is_exact(removal) else "a run alone"
            said = f"not at {numbers}" if problem is None else f"at {numbers}, {how}"
            verdict = _also(verdict, f"{said}: the groups differ there")
            continue
        found = prove.check(other, gone_of(other), small)
        if not found.runnable:
            verdict = _also(verdict, f"not at {numbers}: the original does not run there")
            continue
        if not found.ok:
            return other, replace(found, problem=f"{found.problem}, at {numbers}")
        verdict = _also(verdict.with_run(found), f"at {numbers}")
    for said in sides.left:
        verdict = _also(verdict, f"not at {said}")
    return groups, verdict


def _at_longer_inputs(
    groups: Groups, gone_of: Callable[[Groups], Array], small: Model, verdict: Verdict, given: Mapping[str, int]
) -> tuple[Groups, Verdict]:
    """The proof at longer inputs, too, where it notices few wrong weights.

    The sizes of a trace are the least that run; there, a window may be longer than its input, and see padding for the
    rest.
    """
    if verdict.strength is None or verdict.strength.noticed * 2 > verdict.strength.tried:
        return groups, verdict
    for longer in _longer(groups, given):
        other = retrace(groups, {**groups.static.sizes, **longer})
        same = [(g.name, g.units) for g in other.groups] == [(g.name, g.units) for g in groups.groups]
        if not same or elements_of_a_run(other) >= LARGE_RUN:
            continue
        found = prove.check(other, gone_of(other), small)
        if not found.runnable:
            continue
        numbers = ", ".join(f"{s}={n}" for s, n in longer.items())
        if not found.ok:
            return other, replace(found, problem=f"{found.problem}, at {numbers}")
        return groups, _also(verdict.with_run(found), f"at {numbers}")
    return groups, verdict


def _longer(groups: Groups, given: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Larger numbers for dynamic sizes that are no batch; with those that may be one, as the second axis of a state."""
    uses, sizes = symbolic_dims(groups.model.proto.graph), groups.static.sizes
    free = [symbol for symbol in sizes if symbol in uses and symbol not in given and uses[symbol].axis]
    certain = [symbol for symbol in free if not may_be_batch(uses[symbol])]
    chosen = [symbols for symbols in ((free, certain) if certain != free else (free,)) if symbols]
    yield from ({symbol: sizes[symbol] * factor for symbol in symbols} for factor in LONGER for symbols in chosen)


def _also(verdict: Verdict, said: str) -> Verdict:
    return replace(verdict, checks=[*verdict.checks, said])


def _attempt(groups: Groups, chosen: Mapping[str, Array], feeds: Mapping[str, Array] | None) -> Verdict:
    """The proof of some of the groups alone, on `feeds` where they are given."""
    mask = removed_classes(groups, chosen)
    try:
        return replace(prove.check(groups, mask, rewrite(groups, mask), feeds=feeds), feeds=feeds)
    except ModelError as error:
        return Verdict(False, math.nan, prove.tolerance_of(groups), error.message)


def rolled_back_from(
    groups: Groups, chosen: Mapping[str, Array], verdict: Verdict
) -> tuple[dict[str, Array], Model, Verdict, tuple[RolledBack, ...]]:
    """Leave out the groups whose proof fails: those that the proof names, else they are found by halving.

    Args:
        groups: the traced original.
        chosen: group name -> indices of the classes that are removed.
        verdict: the proof that failed.

    Returns:
        (what is still removed, the model without it, its proof, the groups that were left out).

    Raises:
        GoalMissed: every group failed its proof.
    """
    failed: list[RolledBack] = []
    left, found = dict(chosen), verdict
    while left and not found.ok:
        bad = _named(found, left) or _halved(groups, left, found)
        for one in bad:
            logger.warning("group %s is left whole: %s", one.group, one.problem)
            del left[one.group]
        failed += bad
        found = _attempt(groups, left, verdict.feeds) if left else found
    if not left:
        raise GoalMissed(
            f"nothing was pruned, every group failed its proof: {verdict.problem}",
            hint="prove at other sizes (--sizes), or on your own inputs (--data); if the model runs well, report it",
        )
    return left, rewrite(groups, removed_classes(groups, left)), found, tuple(failed)


def _named(verdict: Verdict, chosen: Mapping[str, Array]) -> list[RolledBack]:
    """The groups of which the proof says that nothing else can be the cause of what differs."""
    alone = {causes[0] for causes in verdict.wrong.values() if len(causes) == 1}
    return [RolledBack(name, verdict.problem) for name in chosen if name in alone]


def _halved(groups: Groups, chosen: Mapping[str, Array], verdict: Verdict) -> list[RolledBack]:
    """The groups whose proof fails alone, among those that the proof suspects; else those that fail with others."""
    failed: list[RolledBack] = []

    def search(names: list[str], known: Verdict | None = None) -> None:
        found = known or (_attempt(groups, {n: chosen[n] for n in names}, verdict.feeds) if names else None)
        if found is None or found.ok:
            return
        if len(names) == 1:
            failed.append(RolledBack(names[0], found.problem))
            return
        half = len(names) // 2
        search(names[:half])
        search(names[half:])

    suspects = {cause for causes in verdict.wrong.values() for cause in causes}
    search([n for n in chosen if n in suspects])
    if not failed:
        search(list(chosen), verdict)
    if failed:
        return failed
    others = list(chosen)[_together(groups, chosen, verdict.feeds) :] or list(chosen)
    return [RolledBack(n, "its proof fails together with that of other groups") for n in others]


def _together(groups: Groups, chosen: Mapping[str, Array], feeds: Mapping[str, Array] | None) -> int:
    """How many of the groups, from the first, pass the proof together."""
    names = list(chosen)
    low, high = 0, len(names)
    if not names or _attempt(groups, chosen, feeds).ok:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if _attempt(groups, {n: chosen[n] for n in names[:middle]}, feeds).ok:
            low = middle
        else:
            high = middle
    return low
