"""Criteria: functions from a traced model to a score per class of labels; the lowest go first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.criteria import magnitude
from onnxprune.errors import UsageError
from onnxprune.grouping import Group, Groups

# float64[classes]; classes of no group may hold anything.
Criterion = Callable[[Groups, np.random.Generator], np.ndarray]


def random(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise: the baseline that every criterion must beat."""
    return rng.random(groups.classes.count)


_CRITERIA: dict[str, Criterion] = {"l1": magnitude.l1, "l2": magnitude.l2, "random": random}


def register_criterion(name: str, criterion: Criterion) -> None:
    """Make `criterion` available under `name` to `prune(criterion=name)` and `--criterion name`."""
    _CRITERIA[name] = criterion


def names() -> list[str]:
    """All registered criteria."""
    return sorted(_CRITERIA)


def score(groups: Groups, criterion: str | Criterion, seed: int = 0) -> np.ndarray:
    """Scores of every class, float64[classes]; higher is more important.

    Raises:
        UsageError: no criterion has that name, or the criterion returned something else than finite numbers.
    """
    if isinstance(criterion, str):
        if criterion not in _CRITERIA:
            raise UsageError(f"no criterion is called {criterion!r}", hint=f"known: {', '.join(names())}")
        criterion = _CRITERIA[criterion]
    scores = np.asarray(criterion(groups, np.random.default_rng(seed)), np.float64)
    if scores.shape != (groups.classes.count,):
        raise UsageError(f"the criterion returned shape {scores.shape}, not ({groups.classes.count},)")
    for group in groups.groups:
        if not np.isfinite(scores[group.classes]).all():
            odd = ", ".join(repr(name) for name in _not_finite(groups, group)[:3])
            raise UsageError(
                f"the scores of group {group.name!r} are not finite: {odd or 'the criterion'} holds NaN or infinity",
                hint=f"repair the weights, or leave the group alone with --keep {group.name!r}",
            )
    return scores


def _not_finite(groups: Groups, group: Group) -> list[str]:
    """The weights of a group that hold NaN, infinity, or numbers that overflow when they are squared."""
    names = dict.fromkeys(groups.tracing.weights[member.key] for member in group.members)
    values = ((name, groups.tracing.weight_value(name)) for name in names)
    with np.errstate(over="ignore", invalid="ignore"):
        return [n for n, v in values if v is not None and not np.isfinite(np.square(v.astype(np.float32))).all()]


__all__ = ["Criterion", "names", "register_criterion", "score"]
