"""Optimisers and rate schedules over named numpy arrays.

Arrays are changed in place, so a session that reads them sees every step without a copy.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.typing import Array

Arrays = Mapping[str, Array]
Schedule = Literal["constant", "linear", "cosine"]
SCHEDULES: Sequence[Schedule] = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class ParameterGroup:
    """Options of the parameters whose names match a glob; the first group that matches counts.

    Attributes:
        names: glob over initializer names.
        rate: multiplies the learning rate; 0 freezes the parameters.
        decay: weight decay of these parameters; the optimiser's own if None.
    """

    names: str
    rate: float = 1.0
    decay: float | None = None


@dataclass
class Optimizer:
    """State that all optimisers share.

    Attributes:
        decay: decoupled weight decay, applied to tensors of two axes or more (Loshchilov and Hutter 2019).
        groups: options by glob.
        steps: updates made so far.
        slots: state by parameter: running moments.
    """

    decay: float = 0.0
    groups: Sequence[ParameterGroup] = ()
    steps: int = 0
    slots: dict[str, dict[str, Array]] = field(default_factory=dict)

    def update(self, parameters: Arrays, gradients: Arrays, rate: float) -> None:
        """Change parameters in place by one step.

        Args:
            parameters: name -> array to change.
            gradients: name -> array of the same shape; parameters without one stay as they are.
            rate: learning rate.
        """
        self.steps += 1
        for name, gradient in gradients.items():
            weight = parameters[name]
            factor, decay = self._options(name)
            if factor == 0:
                continue
            if decay and weight.ndim > 1:
                weight *= 1 - rate * factor * decay
            self._step(name, weight, gradient, rate * factor)

    def _options(self, name: str) -> tuple[float, float]:
        for group in self.groups:
            if fnmatch.fnmatchcase(name, group.names):
                return group.rate, self.decay if group.decay is None else group.decay
        return 1.0, self.decay

    def _slot(self, name: str, key: str, like: Array) -> Array:
        slots = self.slots.setdefault(name, {})
        if key not in slots:
            slots[key] = np.zeros_like(like)
        return slots[key]

    def _step(self, name: str, weight: Array, gradient: Array, rate: float) -> None:
        weight -= rate * gradient

    def state(self) -> dict[str, Array]:
        """All state as arrays by name, for a checkpoint."""
        arrays = {f"{name}\0{key}": value for name, slots in self.slots.items() for key, value in slots.items()}
        return {"\0steps": np.array(self.steps), **arrays}

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` returned."""
        self.slots = {}
        for joined, value in state.items():
            name, _, key = joined.rpartition("\0")
            if name or key != "steps":
                self.slots.setdefault(name, {})[key] = np.array(value)
            else:
                self.steps = int(value)


@dataclass
class SGD(Optimizer):
    """Gradient descent with momentum.

    Attributes:
        momentum: share of the running sum of gradients that is kept.
        nesterov: look ahead along the running sum (Nesterov 1983, as in Sutskever et al. 2013).
    """

    momentum: float = 0.9
    nesterov: bool = False

    def _step(self, name: str, weight: Array, gradient: Array, rate: float) -> None:
        if not self.momentum:
            weight -= rate * gradient
            return
        velocity = self._slot(name, "velocity", weight)
        velocity *= self.momentum
        velocity += gradient
        weight -= rate * (gradient + self.momentum * velocity if self.nesterov else velocity)


@dataclass
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Kingma and Ba 2015, Loshchilov and Hutter 2019).

    Attributes:
        beta1: share of the running mean of gradients that is kept.
        beta2: share of the running mean of squared gradients that is kept.
        epsilon: added to the deviation.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def _step(self, name: str, weight: Array, gradient: Array, rate: float) -> None:
        mean, square = self._slot(name, "mean", weight), self._slot(name, "square", weight)
        mean *= self.beta1
        mean += (1 - self.beta1) * gradient
        square *= self.beta2
        square += (1 - self.beta2) * gradient * gradient
        deviation = np.sqrt(square)
        deviation *= 1 / math.sqrt(1 - self.beta2**self.steps)
        deviation += self.epsilon
        np.divide(mean, deviation, out=deviation)
        deviation *= rate / (1 - self.beta1**self.steps)
        weight -= deviation


# Vectors (biases, shifts) are taken for at least this large: many begin at zero.
LEAST_SIZE = 1e-3


@dataclass
class RelativeAdamW(AdamW):
    """AdamW whose steps are relative to the size of each weight: the root mean square of its elements.

    Weights that norms were folded into, or that read inputs of other scales, differ in size by orders of magnitude; one
    absolute step for all destroys the small ones. Source: Shazeer and Stern, "Adafactor", 2018, section 8.
    """

    def _step(self, name: str, weight: Array, gradient: Array, rate: float) -> None:
        size = math.sqrt(float(np.vdot(weight, weight)) / max(weight.size, 1))
        super()._step(name, weight, gradient, rate * (size if weight.ndim > 1 else max(size, LEAST_SIZE)))


OPTIMIZERS: Mapping[str, type[Optimizer]] = {"adamw": AdamW, "relative": RelativeAdamW, "sgd": SGD}


def scheduled(rate: float, step: int, steps: int, *, schedule: Schedule = "cosine", warmup: int = 0) -> float:
    """Return the learning rate of a step.

    Args:
        rate: the highest rate.
        step: counted from 0.
        steps: number of steps in all.
        schedule: how the rate falls after the warm-up; `linear` and `cosine` fall to zero at the end.
        warmup: steps over which the rate rises from zero.

    Returns:
        The rate.

    Raises:
        UsageError: the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"no schedule {schedule!r}", hint=f"choose from {', '.join(SCHEDULES)}")
    if step < warmup:
        return rate * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return {
        "constant": rate,
        "linear": rate * (1 - done),
        "cosine": rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))),
    }[schedule]


def clip_by_norm(gradients: Arrays, limit: float) -> float:
    """Scale gradients in place so that their joint Euclidean norm is at most `limit`.

    Args:
        gradients: name -> array.
        limit: the largest norm; none if 0.

    Returns:
        The norm before; infinite or NaN if a gradient is not finite, and nothing is scaled then.
    """
    squares = sum(float(np.vdot(g, g)) for g in gradients.values())
    norm = math.sqrt(squares) if squares >= 0 else math.nan
    if math.isfinite(norm) and norm > limit > 0:
        for gradient in gradients.values():
            gradient *= limit / norm
    return norm
