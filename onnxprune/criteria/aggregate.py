"""Aggregation of the scores of a unit's coupled weights into one, whatever the criterion measures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from onnxprune.tracing import Groups
from onnxprune.typing import Array

# One member of a group: class ids, each once, and the score of what each holds there.
Member = tuple[Array, Array]
Aggregate = Callable[[Iterable[Member]], Array]

# What the command line says about them, too.
AGGREGATIONS = {
    "sum": "sum over the members",
    "mean": "mean over the members",
    "max": "the largest of the members",
    "norm": "root of the sum of squares over the members",
}


def aggregated(members: Iterable[Member], how: str, classes: int) -> Array:
    """One score per class: float64[classes], 0 where a class has no member."""
    total = np.zeros(classes)
    count = np.zeros(classes) if how == "mean" else None
    for ids, amounts in members:
        if how == "max":
            total[ids] = np.maximum(total[ids], amounts)
        else:
            total[ids] += np.square(amounts) if how == "norm" else amounts
        if count is not None:
            count[ids] += 1
    if count is not None:
        return total / np.maximum(count, 1)
    return np.sqrt(total) if how == "norm" else total


def by_class(ids: Array, amounts: Array) -> Member:
    """Sums of `amounts` over equal ids; positions with a negative id are left out."""
    held = ids >= 0
    if not held.all():
        ids, amounts = ids[held], amounts[held]
    if ids.size < 2 or (ids[1:] > ids[:-1]).all():
        return ids, amounts.astype(np.float64)
    unique, place = np.unique(ids, return_inverse=True)
    return unique, np.bincount(place.reshape(-1), weights=amounts, minlength=len(unique))


def first_known(groups: Groups, aggregate: Aggregate, *choices: Callable[[], Iterable[Member]]) -> Array:
    """For every group the scores from the first choice that knows all its units: float64[classes]."""
    scores, left = np.zeros(groups.classes.count), list(groups.groups)
    for choice in choices:
        if not left:
            break
        members, known = list(choice()), np.zeros(len(scores), bool)
        for ids, _ in members:
            known[ids] = True
        found = aggregate(members)
        for group in left:
            if known[group.classes].all():
                scores[group.classes] = found[group.classes]
        left = [g for g in left if not known[g.classes].all()]
    return scores
