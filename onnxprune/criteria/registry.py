"""The registry of criteria, and the evidence that a criterion is given."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.criteria.aggregate import Aggregate
from onnxprune.layers import Activations, Weights
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Runs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at; everything is made when it is first asked for.

    Attributes:
        groups: the traced model.
        runs: calibration inputs; empty where none were given.
        compared: whether scores of different groups will be compared, and not only those of one group.
        progress: is told about long work.
    """

    groups: Groups
    runs: Runs = ()
    compared: bool = False
    progress: Callable[[str], None] = logger.info

    @cached_property
    def weights(self) -> Weights:
        """The weights as they act."""
        return Weights(self.groups)

    @cached_property
    def activations(self) -> Activations:
        """Statistics of what contractions read."""
        return Activations(self.groups, self.weights, self.runs)


# float64[classes]; classes of no group may hold anything.
Score = Callable[[Evidence, np.random.Generator, Aggregate], Array]


@dataclass(frozen=True)
class CriterionSpec:
    """A registered criterion.

    Attributes:
        name: what users call it.
        score: makes the scores.
        summary: what it measures, in one line.
        source: where it is from.
        needs_data: whether it looks at calibration inputs.
        aggregate: how it combines coupled members, unless the user says; "" where it combines nothing.
        normalize: how its scores are made comparable between groups, unless the user says.
        accumulates: a unit's score is the damage of all units of its group that go up to it.
    """

    name: str
    score: Score
    summary: str
    source: str = ""
    needs_data: bool = False
    aggregate: str = ""
    normalize: str = "mean"
    accumulates: bool = False


KNOWN: dict[str, CriterionSpec] = {}


def criterion(
    name: str,
    *,
    source: str = "",
    needs_data: bool = False,
    aggregate: str = "",
    normalize: str = "mean",
    accumulates: bool = False,
) -> Callable[[Score], Score]:
    """Register the decorated function; its docstring's first line is the summary."""

    def decorate(function: Score) -> Score:
        summary = (function.__doc__ or "").strip().splitlines()[0].rstrip(".") if function.__doc__ else ""
        KNOWN[name] = CriterionSpec(
            name=name,
            score=function,
            summary=summary,
            source=source,
            needs_data=needs_data,
            aggregate=aggregate,
            normalize=normalize,
            accumulates=accumulates,
        )
        return function

    return decorate
