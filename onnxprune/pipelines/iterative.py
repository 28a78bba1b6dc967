"""Scores, made in steps: part of what is to go goes, the rest is repaired and scored anew, until all has gone.

Criteria look at the model as it is; after half of a removal, and its repair, other units may be the least important.
What comes out are scores of the original's units, in the order in which they went: the cut, its proof and the repair at
the end are of the original, as in one step, so that no repair is built on another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune import criteria
from onnxprune.allocation import BudgetFitter, Options, named_rows
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.recovery import recover
from onnxprune.rewriting import Removal, gone, io_changes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Group, Groups, trace
from onnxprune.typing import Array

logger = logging.getLogger(__name__)


def scored(
    groups: Groups,
    options: Options,
    runs: Sequence[Mapping[str, Array]],
    recovery: recover.RecoveryOptions,
    place: Place | None = None,
    *,
    progress: Callable[[str], None] = logger.info,
) -> Array:
    """Scores of all classes, float64[classes].

    Args:
        groups: the traced original.
        options: what to prune, and in how many steps.
        runs: calibration inputs; without any, nothing is repaired between two steps.
        recovery: how to repair between two steps.
        place: where times are measured, if the options ask for any.
        progress: is told about long work.
    """
    scores = _score(groups, options, runs, progress)
    if options.steps == 1:
        return scores
    # How many units of every group go is settled by the first scores; the steps say which.
    removed = BudgetFitter.of(groups, scores, options, place, progress).fit().removed
    named, _ = named_rows.removed(groups, options.rows)
    going = [g for g in groups.groups if g.name in removed and g.name not in named]  # named rows have no order
    for step in range(1, options.steps):
        progress(f"step {step} of {options.steps}")
        part = {g.name: _first(g, scores, removed, step / options.steps) for g in going}
        cut = Removal(groups, gone(groups, part))
        small = rewrite(groups, cut.gone)
        if runs and recovery.can_act(data=True):
            small, _ = recover.repair(cut, small, runs, recovery, progress=progress)
        inner = trace(
            small,
            heads=groups.heads,
            head_dims=groups.head_dims,
            allow_io_changes=groups.allow_io_changes,
            sizes=dict(groups.facts.sizes),
        )
        fresh = _score(inner, options, [io_changes.feeds(cut, feeds) for feeds in runs], progress)
        scores = _taken_over(groups, cut.gone, scores, inner, fresh)
    return scores


def _score(
    groups: Groups, options: Options, runs: Sequence[Mapping[str, Array]], progress: Callable[[str], None]
) -> Array:
    given = (options.criterion, options.seed, runs, options.aggregate)
    return criteria.score(groups, *given, compared=options.strategy != "uniform", progress=progress)


def _first(group: Group, scores: Array, removed: Mapping[str, Array], share: float) -> Array:
    """The share of a group's removal that goes first."""
    order = units_in_order(group, scores)
    count = int(len(removed[group.name]) / order.shape[1] * share)
    return np.asarray(order[:count].reshape(-1))


def _taken_over(groups: Groups, away: Array, scores: Array, inner: Groups, fresh: Array) -> Array:
    """The scores, with fresh ones for what is left, behind all of the same group that went."""
    scores, found = scores.copy(), {g.name: g for g in inner.groups}
    for group in groups.groups:
        left, went = group.classes[~away[group.classes]], group.classes[away[group.classes]]
        now = found.get(group.name)
        if now is None or len(now.classes) != len(left):  # it is no such group any more: the former scores stay
            continue
        values = fresh[now.classes]
        scores[left] = values if not len(went) else values - min(values.min(), 0) + scores[went].max()
    return scores
