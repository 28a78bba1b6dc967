"""Options of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnxprune.autodiff import OPTIMIZERS, SCHEDULES, Loss, Optimizer, ParameterGroup, Schedule, scheduled
from onnxprune.errors import UsageError
from onnxprune.names import LOSSES, TEMPERATURES, WHILE_TRAINING, ZEROS_WHILE_TRAINING
from onnxprune.recovery.augment import AUGMENTATIONS
from onnxprune.recovery.saving import Saving
from onnxprune.runtime import CPU_PROVIDER, Setting

# A run ends early if so many of its 25 judgements in a row were no better than the best; fewer would end those that
# get worse while the rate is high, and best when it has fallen.
PATIENCE = 15
DISTIL, CROSS_ENTROPY, MSE = LOSSES


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        steps: changes of the weights.
        loss: "distil", "cross-entropy", "mse", or a loss as `autodiff.losses` has them; None is distil with a teacher,
            cross-entropy with labels.
        rate: highest learning rate; found by short trials from the first weights if None.
        optimizer: "relative", "adamw" or "sgd"; None is relative where the rate is found, adamw where it is given.
        schedule: how the rate falls: "cosine", "linear" or "constant".
        warm_up: steps over which the rate rises from zero; a twentieth of all if None.
        batch: samples of a batch, where the model leaves that open; else of as many batches together.
        accumulate: batches whose gradients are averaged for a step; those that make up `batch` if None.
        clip: largest norm of all gradients together; 0 for no limit.
        decay: weight decay.
        rates: glob over weights -> factor of the rate; the first that matches counts.
        freeze: globs over weights that stay as they are.
        freeze_blocked: weights behind an operator without a gradient stay as they are, in place of an error.
        learn_scales: learn the scales of quantised weights and activations, too, not the numbers alone.
        average: share of the running mean of weights that is kept at every step, and judged; 0 for none.
        augment: transforms of pictures: flip, shift, colour, mixup.
        intermediate: globs over tensors inside of the model that shall be the teacher's, too.
        padding: an input of the model that is 0 where positions are padding, which does not count; none if None.
        temperature: divides logits of a distillation; None takes outputs as they are.
        while_training: how what goes is chosen while training (see `names.WHILE_TRAINING`); it is before that if empty.
        every: steps between two such choices; as many as make some fifteen of them if None.
        norm_statistics: estimate the statistics of BatchNormalization again after the last step, and keep them if that
            is better on held-out samples.
        patience: judgements without a better one that end the run; 0 for none.
        seed: of the order of samples, and of transforms.
        threads: of an operator; 0 is all cores.
        provider: execution provider of ONNX Runtime that gradients and the teacher's answers are computed on.
        workers: who computes gradients: 1 for this process; more for so many local processes; an Executor, whose
            workers see the files of this machine; or a `distributed.Client`.
        parts: parts that a batch is cut into, whose gradients are averaged; as many as there are workers if None.
        saving: where the run is kept every few minutes, and what it is continued from; nowhere if None.

    Example:
        >>> import onnxprune
        >>> options = onnxprune.TrainingOptions(4, rate=1e-3, batch=32)
        >>> data = "models/digits_calibration.npz"
        >>> result = onnxprune.prune("models/digits.onnx", 0.5, data=data, samples=64, train=options)
        >>> result.report.training.steps
        4
    """

    steps: int
    loss: str | Loss | None = None
    rate: float | None = None
    optimizer: str | None = None
    schedule: Schedule = "cosine"
    warm_up: int | None = None
    batch: int = 64
    accumulate: int | None = None
    clip: float = 0.0
    decay: float = 0.0
    rates: Mapping[str, float] = field(default_factory=dict)
    freeze: Sequence[str] = ()
    freeze_blocked: bool = False
    learn_scales: bool = False
    average: float = 0.0
    augment: Sequence[str] = ()
    intermediate: Sequence[str] = ()
    padding: str | None = None
    temperature: float | None = None
    while_training: str = ""
    every: int | None = None
    norm_statistics: bool = False
    patience: int = PATIENCE
    seed: int = 0
    threads: int = 0
    provider: str = CPU_PROVIDER
    workers: Any = 1
    parts: int | None = None
    saving: Saving | None = None

    def __post_init__(self) -> None:
        known_ways = (*WHILE_TRAINING, *ZEROS_WHILE_TRAINING)
        for what, value, known in (
            *([("optimizer", self.optimizer, OPTIMIZERS)] if self.optimizer is not None else ()),
            ("schedule", self.schedule, SCHEDULES),
            *([("loss", self.loss, LOSSES)] if isinstance(self.loss, str) else ()),
            *([("way to choose while training", self.while_training, known_ways)] if self.while_training else ()),
            *(("augmentation", name, AUGMENTATIONS) for name in self.augment),
        ):
            if value not in known:
                raise UsageError(f"no {what} is called {value!r}", hint=f"choose from {', '.join(known)}")
        counts = {name: getattr(self, name) for name in ("steps", "batch", "accumulate", "every", "parts")}
        counts |= {"workers": self.workers} if isinstance(self.workers, int) else {}
        if any(count is not None and count < 1 for count in counts.values()):
            raise UsageError(f"{', '.join(counts)} must be at least 1")
        object.__setattr__(self, "provider", Setting(self.provider).provider)
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"a learning rate must be above 0, not {self.rate:g}")
        low, high = TEMPERATURES
        if self.temperature is not None and not low <= self.temperature <= high:
            raise UsageError(f"a temperature must be from {low:g} to {high:g}, not {self.temperature:g}")
        if not 0 <= self.average < 1:
            raise UsageError(f"the share of a running mean must be at least 0 and below 1, not {self.average:g}")

    @property
    def setting(self) -> Setting:
        """What models run on."""
        return Setting(self.provider, self.threads)

    def numbered(self, number: int, **other: Any) -> TrainingOptions:
        """The options of one training of several, counted from 1, which has a checkpoint of its own.

        Args:
            number: which one.
            other: fields that it has otherwise.
        """
        return replace(self, saving=None if self.saving is None else self.saving.numbered(number), **other)

    def belonging_to(self, digest: str) -> TrainingOptions:
        """The options for a run whose checkpoints belong to a model, data and all else that has this digest."""
        return self if self.saving is None else replace(self, saving=replace(self.saving, belongs_to=digest))

    @property
    def optimizer_name(self) -> str:
        """What makes the steps: given rates are meant as those of AdamW."""
        return self.optimizer or ("relative" if self.rate is None else "adamw")

    def optimizing(self) -> Optimizer:
        """A new optimiser."""
        groups = [ParameterGroup(glob, rate) for glob, rate in self.rates.items()]
        return OPTIMIZERS[self.optimizer_name](decay=self.decay, groups=groups)

    def rate_at(self, step: int, rate: float) -> float:
        """The rate of a step, counted from 0."""
        warm_up = self.steps // 20 if self.warm_up is None else self.warm_up
        return scheduled(rate, step, self.steps, schedule=self.schedule, warmup=warm_up)
