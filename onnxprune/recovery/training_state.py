"""The state of a training run, where it is saved, and its result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxprune.autodiff import Optimizer
from onnxprune.recovery.checkpoint import Checkpoint
from onnxprune.recovery.student import Weights


@dataclass(frozen=True)
class Judgement:
    """How a run stood at a step.

    Attributes:
        step: steps made.
        loss: mean loss since the judgement before.
        held: loss on held-out samples.
    """

    step: int
    loss: float
    held: float


@dataclass(frozen=True)
class Training:
    """What training did.

    Attributes:
        loss: name of the loss.
        steps: steps that were made.
        rate: highest learning rate.
        found: rate -> loss on held-out samples after a short trial; empty where the rate was given.
        before: loss on held-out samples at the beginning.
        after: the same of the weights that were kept.
        course: the judgements.
        best: steps after which the weights were best; 0 if no step made them better.
        skipped: steps left out because the loss or a gradient was not finite.
        trained: number of elements that are trained.
        blocked: weight -> why it could not be trained.
        samples: samples to train on.
        held: samples that judge.
        seconds: wall time.
    """

    loss: str
    steps: int
    rate: float
    found: Mapping[float, float]
    before: float
    after: float
    course: Sequence[Judgement]
    best: int
    skipped: int
    trained: int
    blocked: Mapping[str, str]
    samples: int
    held: int
    seconds: float


@dataclass
class TrainingState:
    """A run between two steps; the rate and the first loss are NaN until they are known."""

    weights: Weights
    optimizer: Optimizer
    best: Weights
    average: Weights
    rate: float = math.nan
    found: dict[float, float] = field(default_factory=dict)
    before: float = math.nan
    step: int = 0
    chosen: int = -1
    best_step: int = 0
    best_loss: float = math.inf
    factor: float = 1.0
    skipped: int = 0
    in_a_row: int = 0
    total: float = 0.0
    counted: int = 0
    is_whole: bool = True
    course: list[Judgement] = field(default_factory=list)

    _NUMBERS = (
        *("rate", "before", "step", "chosen", "best_step", "best_loss"),
        *("factor", "skipped", "in_a_row", "total", "counted"),
    )

    @property
    def candidate(self) -> Weights:
        """The weights that are judged: their running mean, where there is one."""
        return self.average or self.weights

    def checkpoint(self) -> Checkpoint:
        """All of it, as a file takes it."""
        arrays = {
            "weights": self.weights,
            "best": self.best,
            "average": self.average,
            "optimizer": self.optimizer.state(),
        }
        numbers: dict[str, Any] = {name: getattr(self, name) for name in self._NUMBERS}
        numbers |= {"found": list(self.found.items()), "course": [asdict(j) for j in self.course]}
        return Checkpoint(arrays, numbers)

    def restore(self, saved: Checkpoint) -> None:
        """Continue from what `checkpoint` returned."""
        for name, array in saved.arrays["weights"].items():
            self.weights[name][...] = array
        self.best = {n: np.array(a) for n, a in saved.arrays["best"].items()}
        self.average = {n: np.array(a) for n, a in saved.arrays.get("average", {}).items()}
        self.optimizer.restore(saved.arrays["optimizer"])
        for name in self._NUMBERS:
            setattr(self, name, saved.numbers[name])
        self.found = {float(rate): float(loss) for rate, loss in saved.numbers["found"]}
        self.course = [Judgement(**j) for j in saved.numbers["course"]]
