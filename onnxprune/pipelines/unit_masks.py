"""Masks on units while the model trains: as many in the end as go, and the same ones that training finds.

What the gradients say of a unit needs no run of its own. The sum of weight times gradient over the weights that read it
is the slope of the loss along a factor on the unit: for a masked one, whose factor is zero, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from onnxprune import criteria
from onnxprune.allocation import Options
from onnxprune.autodiff import write_back
from onnxprune.errors import UsageError
from onnxprune.layers import unit_reads
from onnxprune.pipelines.iterative import UnitsToGo, cubic
from onnxprune.recovery import Masks, Thinning, TrainingOptions
from onnxprune.tracing import retrace
from onnxprune.typing import Array

# Share of the steps by which as many units are masked as will go, and how often they are chosen unless options say.
FULL, TIMES = 0.7, 15
# What is kept of what gradients said before, when units are chosen; all of it where it is summed up.
MEMORY = 0.5
# Movement of weights away from zero (Sanh et al., "Movement Pruning", 2020, eq. 5), of all weights that read a unit.
MOVEMENT = "movement"

# From sums of weight times gradient over the elements that read a unit (the slope of the loss along a factor on the
# unit), and of their squares, to what is added up between two choices.
ACCUMULATED: Mapping[str, Callable[[Array, Array], Array]] = {
    "taylor": lambda slope, squares: np.square(slope),
    "fisher": lambda slope, squares: squares,
    MOVEMENT: lambda slope, squares: -slope,
}
# What chooses where the criterion would need the data to be run through the model again.
WITHOUT_RUNS = "taylor"


class UnitCourse(Thinning):
    """A course that ends with masks on as many units of every group as go.

    Attributes:
        going: how many units of every group go.
        scores: float64[classes]: those with the lowest go, as far as is known by now.
    """

    CHANGING: tuple[str, ...] = ("scores",)

    def __init__(self, going: UnitsToGo, scores: Array, options: Options, training: TrainingOptions) -> None:
        """Prepare a course.

        Args:
            going: how many units of every group go in the end.
            scores: the first scores, float64[classes].
            options: with the criterion.
            training: with the steps, and how often units are chosen.

        Raises:
            UsageError: no weight reads a unit that goes.
        """
        self.going, self.groups, self.scores, self.options = going, going.groups, scores, options
        self.until = training.steps
        self.every = training.every or max(1, training.steps // TIMES)
        self.reads = unit_reads(self.groups, self.groups.model.initializers)
        if not any((~read.kept(self.gone())).any() for read in self.reads):
            raise UsageError("no weight reads the units that go, so they cannot be masked while training")

    def target(self, weights: Mapping[str, Array]) -> Masks:
        """Masks on as many units as go in the end."""
        return self.masks(self.gone())

    def gone(self, share: float = 1.0) -> Array:
        """bool[classes]: what is masked when a share of what goes is."""
        return self.going.first(self.scores, lambda _: share)

    def share(self, step: int) -> float:
        """The share of what goes that is gone at a step."""
        return cubic(step / (FULL * self.until))

    def masks(self, gone: Array) -> Masks:
        """Masks on the elements that read these classes, bool[classes]."""
        masks = dict[str, Array]()
        for read in self.reads:
            kept = read.kept(gone)
            masks[read.name] = masks[read.name] & kept if read.name in masks else kept
        return masks


class SoftMasks(UnitCourse):
    """Masks that are chosen again and again: what went may return."""

    CHANGING = ("scores", "is_settled", "_masked", "_seen", "_weight")

    def __init__(self, going: UnitsToGo, scores: Array, options: Options, training: TrainingOptions) -> None:
        """Prepare a course; see `UnitCourse`."""
        super().__init__(going, scores, options, training)
        self.how = accumulated(options.criterion)
        self.is_settled = False
        self._masked = np.zeros(len(scores), bool)
        self._seen, self._weight = np.zeros_like(scores), 0.0

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """New masks every so many steps."""
        if step % self.every or self.is_settled:
            return None
        self._score(weights)
        share = self.share(step)
        self.is_settled = share >= 1
        self._masked = self.gone(share)
        return self.masks(self._masked)

    def observe(self, weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Add up what the gradients say of units."""
        if not self.how or self.is_settled:
            return
        slope, squares = np.zeros_like(self.scores), np.zeros_like(self.scores)
        for read in self.reads:
            if read.name in gradients:
                product = weights[read.name] * gradients[read.name]
                slope += read.sums(product, len(slope))
                squares += read.sums(np.square(product), len(slope))
        # What is masked is worth something if its return makes the loss less; movement has a sign of its own.
        useful = ~self._masked | (slope < 0) | (self.how == MOVEMENT)
        self._seen += ACCUMULATED[self.how](slope, squares) * useful
        self._weight += 1

    def _score(self, weights: Mapping[str, Array]) -> None:
        """Score the units by what is known by now."""
        if self.how:
            if self._weight:
                self.scores = self._seen / self._weight
                kept = 1.0 if self.how == MOVEMENT else MEMORY
                self._seen, self._weight = self._seen * kept, self._weight * kept
            return
        found = retrace(replace(self.groups, model=write_back(self.groups.model, weights)), self.groups.static.sizes)
        if np.array_equal(found.classes.of, self.groups.classes.of):
            self.scores = criteria.score(
                found, self.options.criterion, self.options.seed, aggregate=self.options.aggregate, compared=False
            )


def accumulated(criterion: object) -> str:
    """What of `ACCUMULATED` chooses units while training; empty where the criterion looks at the weights alone."""
    if isinstance(criterion, str) and criterion in ACCUMULATED:
        return criterion
    return WITHOUT_RUNS if criteria.known(criterion).needs_data else ""  # type: ignore[arg-type]
