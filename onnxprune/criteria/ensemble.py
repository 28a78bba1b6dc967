"""Ensembles of criteria: units that all find unimportant are removed first.

The mean of the units' ranks, over the whole model and between 0 and 1, after the scores of each criterion were made
comparable between groups in its own way (rank aggregation by Borda, 1781).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.criteria.normalize import normalized
from onnxprune.tracing import Groups
from onnxprune.typing import Array

DATA_FREE = ("l2", "fpgm")
WITH_DATA = ("l2", "wanda", "fluctuation")


def mean_rank(groups: Groups, members: Sequence[tuple[Array, str]]) -> Array:
    """The mean over (scores, normalization) of every class' rank."""
    total = np.zeros(groups.classes.count)
    if not groups.groups:
        return total
    places = np.concatenate([g.classes for g in groups.groups])
    for scores, how in members:
        total[places] += ranks(np.concatenate([normalized(scores[g.classes], how) for g in groups.groups]))
    return total / len(members)


def ranks(values: Array) -> Array:
    """Ranks from 0 to 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    return middle[place.reshape(-1)] / max(len(values) - 1, 1)
