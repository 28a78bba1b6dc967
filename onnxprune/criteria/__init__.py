"""Score units of a traced model: float64 per class of labels; the lowest scores are removed first.

One file per idea. What they share is `aggregate` (scores of coupled members made one) and `normalize` (scores of
different groups made comparable), and `onnxprune.layers` (weights as they act, and statistics of what they read).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from onnxprune.criteria import (  # noqa: F401 (each registers itself)
    activation,
    apoz,
    bn_scale,
    ensemble,
    fisher,
    fluctuation,
    fpgm,
    lamp,
    magnitude,
    movement,
    obs,
    random,
    taylor,
    wanda,
)
from onnxprune.criteria.aggregate import AGGREGATIONS, Aggregate, aggregated
from onnxprune.criteria.blocks import block_influence, block_params
from onnxprune.criteria.dead import CAUSES, RANGE, Dead, Fold, Judged, judge
from onnxprune.criteria.normalize import NORMALIZATIONS, accumulated, normalized
from onnxprune.criteria.output_damage import DamageTrial, impacts, output_error
from onnxprune.criteria.output_gradients import mean_square_gradients
from onnxprune.criteria.registry import KNOWN, CriterionSpec, Evidence, logger
from onnxprune.errors import UsageError
from onnxprune.plugins import load_installed
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array, Runs

# A user's: from the traced model and a generator, and the calibration runs if it needs data, to float64[classes].
Criterion = Callable[..., Array]

ENSEMBLE = "ensemble"
AUTO = "auto"
SUMMARY = f"Mean of the ranks under several criteria: {ENSEMBLE}:l2,wanda"


def register_criterion(name: str, criterion: Criterion, *, needs_data: bool = False) -> None:
    """Make `criterion` available under `name` to `prune(criterion=name)` and `--criterion name`.

    Args:
        name: what it is called; neither a colon nor a comma may be in it.
        criterion: gets the traced model and a generator, and returns float64[classes].
        needs_data: it gets the calibration runs (feeds by input name) as well.

    Raises:
        UsageError: the name holds a colon or a comma.

    Example:
        >>> import numpy as np, onnxprune
        >>> def first_units_last(groups, rng):
        ...     return np.arange(groups.classes.count)[::-1].astype(np.float64)
        >>> onnxprune.register_criterion("first-units-last", first_units_last)
        >>> onnxprune.make_plan("models/digits.onnx", 0.25, criterion="first-units-last").steps[0].remove[:3]
        (24, 25, 26)
    """
    if set(name) & set(":,"):
        raise UsageError(f"a criterion cannot be called {name!r}: a colon and a comma have a meaning in a list of them")
    KNOWN[name] = _custom(name, criterion, needs_data=needs_data)


def names() -> list[str]:
    """Name all registered criteria.

    Returns:
        Names in alphabetical order, "ensemble" among them.
    """
    return sorted([*KNOWN, ENSEMBLE])


def listed() -> list[CriterionSpec]:
    """List all registered criteria, and the ensemble that names no members.

    Returns:
        Criteria, by name.
    """
    return [known(name) for name in names()]


def known(criterion: str | Criterion, *, data: bool = False) -> CriterionSpec:
    """Look up a criterion.

    Args:
        criterion: the name of a registered criterion, `ensemble:` and several, or a function.
        data: there are calibration inputs, which an ensemble that names no members then uses.

    Returns:
        The criterion, with how its scores are aggregated and normalised.

    Raises:
        UsageError: no criterion has that name.
    """
    if not isinstance(criterion, str):
        return _custom(getattr(criterion, "__name__", "custom"), criterion)
    if criterion == AUTO:
        criterion = "obs" if data else "l2"
    name, colon, listed = criterion.partition(":")
    if name == ENSEMBLE:
        given = listed.split(",") if colon else ensemble.WITH_DATA if data else ensemble.DATA_FREE
        return _ensemble(criterion, [known(one.strip()) for one in given])
    if criterion not in KNOWN:
        raise UsageError(f"no criterion is called {criterion!r}", hint=f"known: {', '.join(names())}")
    return KNOWN[criterion]


def score(
    groups: Groups,
    criterion: str | Criterion,
    seed: int = 0,
    runs: Runs = (),
    aggregate: str | None = None,
    *,
    compared: bool = True,
    progress: Callable[[str], None] = logger.info,
) -> Array:
    """Score every class of labels.

    Args:
        groups: the traced model.
        criterion: a name, or a function (see `Criterion`).
        seed: for criteria that draw random numbers.
        runs: calibration inputs, for criteria that need them.
        aggregate: how the members of a unit are combined; as the criterion does it where None.
        compared: whether scores of different groups will be compared; where not, criteria may save the work for that.
        progress: is told about long work.

    Returns:
        float64[classes]; higher is more important.

    Raises:
        UsageError: no criterion has that name, it needs inputs and there are none, it combines nothing though
            `aggregate` is given, or it returned something else than finite numbers.
    """
    chosen = known(criterion, data=bool(runs))
    if chosen.needs_data and not runs:
        raise UsageError(
            f"the criterion {chosen.name!r} looks at what the model computes, and needs inputs to run it on",
            hint="give some with --data (in Python: data=...)",
        )
    if aggregate and not chosen.aggregate:
        raise UsageError(f"the criterion {chosen.name!r} does not combine members: --aggregate has no meaning for it")
    evidence, rng = Evidence(groups, runs, compared, progress), np.random.default_rng(seed)
    return _finite(groups, chosen.score(evidence, rng, _aggregation(groups, aggregate or chosen.aggregate)))


def _aggregation(groups: Groups, how: str) -> Aggregate:
    return partial(aggregated, how=how or "sum", classes=groups.classes.count)


def _custom(name: str, function: Criterion, *, needs_data: bool = False) -> CriterionSpec:
    def made(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
        data = (evidence.runs,) if needs_data else ()
        return function(evidence.groups, rng, *data)

    summary = (function.__doc__ or "A user's own").strip().splitlines()[0].rstrip(".")
    return CriterionSpec(name, made, summary, needs_data=needs_data)


def _ensemble(name: str, members: list[CriterionSpec]) -> CriterionSpec:
    def made(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
        groups = evidence.groups
        scores = [_finite(groups, k.score(evidence, rng, _aggregation(groups, k.aggregate))) for k in members]
        return ensemble.mean_rank(groups, list(zip(scores, (k.normalize for k in members), strict=True)))

    return CriterionSpec(name, made, SUMMARY, needs_data=any(k.needs_data for k in members), normalize="none")


def _finite(groups: Groups, scores: Any) -> Array:
    scores = np.asarray(scores, np.float64)
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


__all__ = [
    "AGGREGATIONS",
    "CAUSES",
    "Criterion",
    "DamageTrial",
    "Dead",
    "Fold",
    "Judged",
    "NORMALIZATIONS",
    "RANGE",
    "accumulated",
    "block_influence",
    "block_params",
    "impacts",
    "output_error",
    "judge",
    "known",
    "listed",
    "mean_square_gradients",
    "names",
    "normalized",
    "register_criterion",
    "score",
]

load_installed("onnxprune.criteria")
