"""An order of units in which zeros of N:M take less from the layers that read them, proven to change no output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.errors import GoalMissed
from onnxprune.model import Model
from onnxprune.pipelines.equal_steps import largest_equal
from onnxprune.proof import Trials, equals
from onnxprune.rewriting import ReorderStep, unit_places, why_fixed, with_order
from onnxprune.sparsity import ContractionWeight, NofM, best_order, kept
from onnxprune.tracing import Group, Groups, as_field
from onnxprune.typing import Array, Feeds


@dataclass(frozen=True)
class Ordered:
    """Units that change places.

    Attributes:
        steps: the new order of every group that has one.
        before: share of the squares of all weights concerned that N:M keeps in the old order.
        after: the same in the new one.
    """

    steps: tuple[ReorderStep, ...]
    before: float
    after: float


def best_orders(groups: Groups, weights: Sequence[ContractionWeight], pattern: NofM, seed: int) -> Ordered:
    """Look for an order of the units of every group, in which the layers that read it keep more.

    Every layer counts alike: squares of weights are shares of those of their layer.

    Args:
        groups: the traced model.
        weights: those that get zeros.
        pattern: how many of how many neighbours stay.
        seed: of the search.

    Returns:
        The orders.
    """
    rng, steps, sums = np.random.default_rng(seed), list[ReorderStep](), np.zeros(3)
    for group in groups.groups:
        read = [scores for weight in weights if (scores := _scores(groups, group, weight)) is not None]
        if not read or why_fixed(groups, group):
            continue
        scores = np.concatenate(read, axis=1)
        order = best_order(scores, pattern, rng)
        sums += (kept(scores, pattern), kept(scores[order], pattern), float(scores.sum()))
        if (order != np.arange(len(order))).any():
            steps.append(ReorderStep(group.name, tuple(order.tolist())))
    return Ordered(tuple(steps), *(sums[:2] / max(float(sums[2]), 1e-30)).tolist())


def as_far_as_proven(
    groups: Groups, order: Ordered, *, sizes: Mapping[str, int], samples: Sequence[Feeds]
) -> tuple[Model, Ordered]:
    """Put units into another order, those of every group that the proof lets change places.

    Args:
        groups: the traced model.
        order: the orders that were found.
        sizes: numbers for symbolic dims.
        samples: inputs for the proof.

    Returns:
        The model, whose outputs equal those of the original, and its orders.
    """
    found, steps = largest_equal(groups, order.steps, with_order, Trials(sizes=sizes, samples=samples))
    return found, replace(order, steps=steps) if steps else replace(order, steps=(), after=order.before)


def proven_order(
    groups: Groups, steps: Sequence[ReorderStep], *, sizes: Mapping[str, int] | None = None, verify: bool = True
) -> Model:
    """Put units into another order.

    Args:
        groups: the traced model.
        steps: the orders.
        sizes: numbers for symbolic dims.
        verify: prove the outputs equal to the original's.

    Returns:
        The model with its units in that order.

    Raises:
        GoalMissed: they do not.
    """
    found = with_order(groups, steps)
    verdict = equals(groups, found, Trials(sizes=sizes or {})) if verify else None
    if verdict is not None and not verdict.ok:
        raise GoalMissed(
            f"the model with its units in another order is not proven: {verdict.problem}", hint="give --no-permute"
        )
    return found


def _scores(groups: Groups, group: Group, weight: ContractionWeight) -> Array | None:
    """Squares of a weight, a share of their sum, [units, columns]; None where its inputs are not the units."""
    tracing = groups.tracing
    if weight.groups != 1 or weight.channels != len(group.classes):
        return None
    units = np.arange(len(group.classes))
    for axis, labels in enumerate(tracing.axes.get(weight.name, ())):
        if labels.ndim != 1 or not np.isin(group.classes, groups.classes.of[labels[labels >= 0]]).all():
            continue
        places = as_field(unit_places(groups, group, labels), axis, len(weight.shape))
        matrix = weight.as_matrix(np.broadcast_to(places, weight.shape))[0]
        rows = matrix.reshape(-1, len(units), matrix.shape[1])  # [positions of the kernel, channels, outputs]
        if (rows == units[:, None]).all() and (value := tracing.weight_value(weight.name)) is not None:
            squares = np.square(weight.as_matrix(value)[0].astype(np.float64)).reshape(rows.shape)
            columns = squares.transpose(1, 0, 2).reshape(len(units), -1)
            return columns / max(float(columns.sum()), 1e-30)
    return None
