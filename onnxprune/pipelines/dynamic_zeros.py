"""Zeros in single weights that are chosen while the model trains, in the pattern and as many as were asked for.

Every weight keeps the share of zeros that was chosen for it before training; training says where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.in_sequence import ChosenZeros, Sweep
from onnxprune.pipelines.iterative import cubic
from onnxprune.pipelines.train import learn_after
from onnxprune.recovery import Masks, Thinning, Training, TrainingOptions
from onnxprune.rewriting import Removal
from onnxprune.sparsity import ContractionWeight, Pattern
from onnxprune.typing import Array

# Share of the steps in which zeros may move, share of these by which as many are zero as will be, and how often they
# are chosen unless the options say.
OPEN, FULL, TIMES = 0.7, 0.7, 15
# Share of what stays that is exchanged at first (Evci et al. 2020, section 3).
EXCHANGED = 0.3
# Exponent by which the strength of a penalty can change over the course, and what it takes at least of the mean.
REACH, SLACK = 40.0, 0.1


class ZeroCourse(Thinning):
    """A course that ends with as many zeros in every weight as go."""

    # Whether training begins with the zeros that were chosen before it, and the weights that were fitted to them.
    begins_sparse = False

    def __init__(
        self, pairs: Sequence[tuple[ContractionWeight, Array]], pattern: Pattern, training: TrainingOptions
    ) -> None:
        """Prepare a course.

        Args:
            pairs: every weight, and the elements that stay, as they were chosen before training.
            pattern: where zeros may lie.
            training: with the steps, and how often zeros are chosen.

        Raises:
            UsageError: there are too few steps.
        """
        self.weights, self.pattern = {weight.name: weight for weight, _ in pairs}, pattern
        self.kept = {weight.name: keep for weight, keep in pairs}
        self.shares = {name: 1 - float(keep.mean()) for name, keep in self.kept.items()}
        self.until = round(OPEN * training.steps)
        if self.until < 2:
            raise UsageError("zeros cannot be chosen while training in so few steps", hint="give --train at least 4")
        self.every = training.every or max(1, self.until // TIMES)

    def highest(self, name: str, scores: Array, share: float) -> Array:
        """bool: the elements of a weight that stay by their scores, all in its stored layout."""
        weight = self.weights[name]
        kept = self.pattern.keep(weight.as_matrix(scores), share, channels=weight.channels)
        return weight.tensor(kept)

    def part(self, step: int) -> float:
        """The share of the zeros that are there at a step."""
        return cubic(step / (FULL * self.until))

    def largest(self, weights: Mapping[str, Array], part: float = 1.0) -> Masks:
        """Masks by the magnitude of the present weights, with a part of the zeros."""
        found = {}
        for name in self.kept.keys() & weights.keys():
            found[name] = self.highest(name, np.abs(weights[name]), part * self.shares[name])
        return found


class GradualZeros(ZeroCourse):
    """The smallest weights are masked, ever more of them; a mask is loose, so that what went may return.

    Zhu and Gupta, "To prune, or not to prune", 2017; N:M from the first step on, as in Zhou et al., "Learning N:M
    Fine-grained Structured Sparse Neural Networks From Scratch", 2021, section 3.2.
    """

    def target(self, weights: Mapping[str, Array]) -> Masks:
        """The largest weights stay."""
        return self.largest(weights)

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """New masks every so many steps."""
        return None if step % self.every else self.largest(weights, self.part(step))


class ExchangedZeros(ZeroCourse):
    """The smallest weights go, and those with the largest gradients come in their place, ever fewer of them.

    Evci et al., "Rigging the Lottery", 2020, section 3. Gradients are summed up between two choices; what comes begins
    at zero.
    """

    begins_sparse = True
    CHANGING = ("kept", "_slopes")

    def __init__(
        self, pairs: Sequence[tuple[ContractionWeight, Array]], pattern: Pattern, training: TrainingOptions
    ) -> None:
        """Prepare a course; see `ZeroCourse`."""
        super().__init__(pairs, pattern, training)
        self._slopes: dict[str, Array] = {}

    def target(self, weights: Mapping[str, Array]) -> Masks:
        """The weights that stay by now."""
        return {name: keep for name, keep in self.kept.items() if name in weights}

    def observe(self, weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Add up the gradients of what is zero, too."""
        for name in self.kept.keys() & gradients.keys():
            self._slopes[name] = self._slopes.get(name, 0) + gradients[name]

    def shrink(self, step: int, weights: Mapping[str, Array], rate: float) -> None:
        """Leave what is masked at zero."""
        for name in self.kept.keys() & weights.keys():
            weights[name][~self.kept[name]] = 0

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """New masks every so many steps."""
        if step % self.every:
            return None
        share = EXCHANGED / 2 * (1 + math.cos(math.pi * step / self.until))
        for name, slope in self._slopes.items():
            self.kept[name] = self._exchanged(name, np.abs(weights[name]), np.abs(slope), share)
        self._slopes = {}
        return self.target(weights)

    def _exchanged(self, name: str, sizes: Array, slopes: Array, share: float) -> Array:
        kept = self.kept[name]
        order = np.sort(sizes[kept])
        least = order[int(share * len(order))] if len(order) else 0.0
        stays = kept & (sizes >= least)
        # What stays is above all others; the others by their gradients.
        scores = np.where(stays, 2 + sizes / max(float(sizes.max()), 1e-30), slopes / max(float(slopes.max()), 1e-30))
        return self.highest(name, scores, self.shares[name])


class LassoZeros(ZeroCourse):
    """The sum of absolute weights, by proximal steps, as strong as the wanted zeros need (Tibshirani 1996)."""

    CHANGING = ("strength",)

    def __init__(
        self, pairs: Sequence[tuple[ContractionWeight, Array]], pattern: Pattern, training: TrainingOptions
    ) -> None:
        """Prepare a course; see `ZeroCourse`."""
        super().__init__(pairs, pattern, training)
        self.strength = dict.fromkeys(self.kept, 1 / self.until)

    def target(self, weights: Mapping[str, Array]) -> Masks:
        """The largest weights stay."""
        return self.largest(weights)

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """No masks: what is zero is zero."""
        return {} if step == 0 else None

    def shrink(self, step: int, weights: Mapping[str, Array], rate: float) -> None:
        """Draw weights to zero, in place: what is to be zero by now without a limit, the others gently."""
        for name, keep in self.largest(weights, self.part(step)).items():
            weight = weights[name]
            enough = not weight[~keep].any()
            raised = self.strength[name] * math.exp((-REACH if enough else REACH) / self.until)
            self.strength[name] = min(max(raised, SLACK / self.until), 1.0)
            pull = np.where(keep, min(self.strength[name], 1 / self.until), self.strength[name])
            pull *= float(np.abs(weight).mean())
            weight[...] = np.sign(weight) * np.maximum(np.abs(weight) - pull, 0)


# Ways to choose zeros while training; by none the zeros that were chosen before it are held.
WAYS: Mapping[str, type[ZeroCourse]] = {"gradual": GradualZeros, "rigl": ExchangedZeros, "l1": LassoZeros}


def train_zeros(
    sweep: Sweep,
    found: Sequence[ChosenZeros],
    model: Model,
    runs: Sequence[Mapping[str, Array]],
    training: TrainingOptions,
) -> tuple[Model, list[ChosenZeros], Training]:
    """Train a model with zeros towards the original's outputs.

    Args:
        sweep: the traced original, the weights with zeros, and where these may lie.
        found: what was chosen for every weight.
        model: the model with these zeros, fitted to them.
        runs: inputs; those that judge a fit are not trained on.
        training: how to train, and how zeros are chosen meanwhile.

    Returns:
        The trained model, what was chosen in the end for every weight, and what training did.

    Raises:
        UsageError: the way is one for units, there are too few steps, or no weight with zeros can be trained.
        ModelError: no weight can be trained, or an operator has no gradient.
    """
    groups, pairs = sweep.groups, list(zip(sweep.weights, found, strict=True))
    chosen = [(weight, zeros) for weight, zeros in pairs if weight.is_float and weight.name in model.initializers]
    if not chosen:
        raise UsageError("no weight with zeros can be trained: none is stored as floats", hint="leave out --train")
    masks: Masks | ZeroCourse = {weight.name: zeros.keep for weight, zeros in chosen}
    start = model
    if training.while_training:
        if training.while_training not in WAYS:
            raise UsageError(
                f"--while-training: {training.while_training} is for units (`prune`)",
                hint=f"single weights: {', '.join(WAYS)}",
            )
        course = WAYS[training.while_training]([(w, z.keep) for w, z in chosen], sweep.options.zeros, training)
        masks, start = course, model if course.begins_sparse else groups.model
    nothing = Removal(groups, np.zeros(groups.classes.count, bool))
    trained, done = learn_after(nothing, start, runs, training, masks=masks, progress=sweep.progress)
    names = {weight.name for weight, _ in chosen}
    return trained, [_in_the_end(w, z, trained) if w.name in names else z for w, z in pairs], done


def _in_the_end(weight: ContractionWeight, found: ChosenZeros, trained: Model) -> ChosenZeros:
    """What was chosen for a weight that was trained: its zeros."""
    return replace(found, keep=trained.array(weight.name) != 0, refitted=True, error=None)
