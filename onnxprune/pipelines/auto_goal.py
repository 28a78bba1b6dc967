"""What `auto` is to reach, which of two trials is nearer to it, and what a recipe is asked for next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.pipelines.auto_recipes import harm_of
from onnxprune.pipelines.auto_trials import AutoTrial
from onnxprune.pipelines.search_targets import QualityConstraint

# What decides between models of equal quality.
TIE = "sqnr"
# A budget that is missed, or undercut, by less than this share of it is aimed at well enough to compare recipes.
AIM = 0.1
# What is left of a budget, as a share of it, that is not worth another trial.
SLACK = 0.02
# Two measurements of a ratio of times differ by as much.
NOISE = 0.02
# Least share of the original's cost that is asked for, and the step to a smaller one where nothing was too small yet.
LEAST, FURTHER = 0.02, 0.7


@dataclass(frozen=True)
class AutoGoal:
    """What is to be reached.

    Attributes:
        cost: the kind of cost that is limited, or else made as small as it goes.
        most: the share of the original's cost that is allowed; None where the floor alone says how much goes.
        floor: what the model must keep; None for as much as can be.
        whole: the original's own value.
        metric: what quality is measured by; empty where nothing tells.
    """

    cost: str
    most: float | None
    floor: QualityConstraint | None
    whole: Mapping[str, float]
    metric: str

    def quality(self, trial: AutoTrial) -> tuple[float, ...]:
        """How good a trial is, what counts most first; higher is better.

        Few samples often find the same share of classes: then the signal to noise of the outputs decides. Where nothing
        tells, the harm that verbs do in general, and what is nearest to the original.
        """
        if self.metric:
            return tuple(trial.values.get(name, 0.0) for name in (self.metric, TIE))
        return (-harm_of(trial.steps), self.cost_of(trial))

    def cost_of(self, trial: AutoTrial) -> float:
        """The share of the original's cost that a trial has; multiply-accumulates where time was not measured."""
        return trial.shares.get(self.cost, trial.shares.get("macs", math.inf))

    def fits(self, trial: AutoTrial, tolerance: float = 0.0) -> bool:
        """Whether a trial holds the budget."""
        allowed = max(tolerance, NOISE if self.cost == "latency" else 0.0)
        return self.most is None or self.cost_of(trial) <= self.most * (1 + allowed)

    def keeps(self, trial: AutoTrial) -> bool:
        """Whether a trial is good enough."""
        return self.floor is None or self.floor.holds(trial.values, self.whole)

    def rank(self, trial: AutoTrial, tolerance: float = 0.0) -> tuple[Any, ...]:
        """A key that sorts trials, the best first.

        Args:
            trial: one with a model.
            tolerance: share by which the budget may be missed.
        """
        worse, cost = tuple(-part for part in self.quality(trial)), self.cost_of(trial)
        if not self.fits(trial, tolerance):
            return (2, cost, worse)
        if self.most is None and self.keeps(trial):
            return (0, cost, worse)
        return (0 if self.keeps(trial) else 1, worse, cost)

    def next_share(self, tried: Sequence[AutoTrial], first: float, effort: tuple[int, int]) -> float:
        """What the turned step of a recipe is asked for next.

        Args:
            tried: trials of the recipe so far, in their order.
            first: what it is asked for where there are none.
            effort: samples and gradient steps that are to come; what failed with less may do with them.

        Returns:
            A share of the original's cost. A budget that was missed or undercut is asked for again, by as much more or
            less; without a budget, the interval between what was too small and what is good enough is halved.
        """
        if not tried:
            return first
        last = tried[-1]
        assert last.share is not None
        if self.most is not None:
            reached = self.cost_of(last)
            if self.fits(last) and reached >= self.most * (1 - SLACK):
                return last.share
            # A little less than what is allowed: costs go in steps.
            return min(1.0, max(LEAST, last.share * self.most * (1 - SLACK / 2) / max(reached, 1e-9)))
        good = min((t.share for t in tried if t.share is not None and self.keeps(t)), default=1.0)
        failed = [t for t in tried if not self.keeps(t) and (t.samples, t.training) >= effort]
        bad = max((t.share for t in failed if t.share is not None and t.share < good), default=0.0)
        return (good + bad) / 2 if bad else max(LEAST, good * FURTHER)

    def front(self, trials: Sequence[AutoTrial]) -> list[AutoTrial]:
        """Find the trials that no other beats in both cost and quality.

        Returns:
            The smallest first; without a measure of quality, the smallest of every recipe.
        """
        found, best = list[AutoTrial](), tuple[float, ...]()
        if not self.metric:
            seen = set[str]()
            for trial in sorted(trials, key=self.cost_of):
                if trial.recipe not in seen:
                    seen.add(trial.recipe)
                    found.append(trial)
            return found
        for trial in sorted(trials, key=lambda t: (self.cost_of(t), *(-part for part in self.quality(t)))):
            if self.quality(trial) > best:
                best = self.quality(trial)
                found.append(trial)
        return found
