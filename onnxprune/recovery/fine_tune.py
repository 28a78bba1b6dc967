"""Training by gradient steps: what a closed form leaves, small steps along the gradient bring nearer.

The weights that are best on held-out samples are kept, so the result is never worse there than the beginning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np

from onnxprune.autodiff import clip_by_norm, scheduled
from onnxprune.errors import OnnxPruneError, RunError
from onnxprune.layers import bn_matching
from onnxprune.model import Model
from onnxprune.recovery.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from onnxprune.recovery.objectives import Objective
from onnxprune.recovery.student import Student
from onnxprune.recovery.thinning import Masks, Thinning
from onnxprune.recovery.training_options import TrainingOptions
from onnxprune.recovery.training_state import Judgement, Saving, Training, TrainingState
from onnxprune.runtime import Setting
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

# Wall time between two checkpoints.
CHECKPOINT_SECONDS = 120.0
# Times that held-out samples judge a run, at even steps.
JUDGEMENTS = 25
# Steps without a finite loss after which a run is given up; each of them halves the rate.
MOST_SKIPPED = 10
# Rates that are tried, lowest first; AdamW's, SGD takes those times `SGD_FACTOR`.
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
SGD_FACTOR = 30.0
# Steps of a trial of a rate, and how much worse than the best trial ends the search.
TRIAL_STEPS, TRIAL_SHARE, TRIAL_WORSE = 20, 0.1, 1.3


def fine_tune_model(
    model: Model,
    objective: Objective,
    options: TrainingOptions,
    *,
    masks: Masks | Thinning | None = None,
    saving: Saving | None = None,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, Training]:
    """Train a model by gradient steps.

    Args:
        model: the model; it is not changed.
        objective: what it learns from.
        options: how to train.
        masks: initializer -> boolean array, false for elements that are zero and stay so; or what makes the model
            sparser while it trains: then "before" is the loss with the zeros of the end, as they are chosen at first,
            and the best weights are of those behind the step at which the masks are held.
        saving: where the run is kept; nowhere if None. A run that makes the model sparser is not kept.
        progress: is told about every judgement.

    Returns:
        The model with the weights that were best on held-out samples, and what was done.

    Raises:
        ModelError: no weight can be trained, or an operator has no gradient.
        RunError: the loss is not finite.
        UsageError: a glob or a mask fits no weight, or a checkpoint is of another run.
    """
    start = time.monotonic()
    student = Student(
        model,
        objective.loss,
        objective.batch(0, options),
        setting=Setting(threads=options.threads),
        freeze=options.freeze,
        freeze_blocked=options.freeze_blocked,
    )
    try:
        thinning = masks if isinstance(masks, Thinning) else None
        student.mask({} if isinstance(masks, Thinning) else masks or {})
        state = _Run(student, objective, options, saving, progress=progress, thinning=thinning).finished()
        best = student.trained(state.best) if state.best_step or student.kept else model
    finally:
        student.close()
    if options.norm_statistics:
        best = _with_statistics(best, objective, options, state, progress)
    return best, _account(student, objective, state, time.monotonic() - start)


def _with_statistics(
    model: Model,
    objective: Objective,
    options: TrainingOptions,
    state: TrainingState,
    progress: Callable[[str], None],
) -> Model:
    """The model with the BatchNormalization statistics of what it was trained on, if that is better on others."""
    entries = {value.name for value in model.proto.graph.input}
    runs = [{n: a for n, a in feeds.items() if n in entries} for feeds, _ in objective.fitting.in_order()]
    fresh = bn_matching.with_statistics_of(model, runs)
    if fresh is model:
        return model
    student = Student(fresh, objective.loss, objective.batch(0, options), setting=Setting(threads=options.threads))
    try:
        held = mean_loss(student, objective, student.weights)
    finally:
        student.close()
    better = held < state.best_loss
    progress(f"statistics of norms: held out {held:.3g} with those of the data, {state.best_loss:.3g} without")
    state.best_loss = min(held, state.best_loss)
    return fresh if better else model


def mean_loss(student: Student, objective: Objective, weights: Mapping[str, Array]) -> float:
    """The mean loss of all held-out samples."""
    losses = [(student.loss(feeds, weights), count) for feeds, count in objective.held.in_order()]
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


def _account(student: Student, objective: Objective, state: TrainingState, seconds: float) -> Training:
    """What a run did."""
    return Training(
        loss=objective.name,
        steps=state.step,
        rate=state.rate,
        found=state.found,
        before=state.before,
        after=state.best_loss,
        course=tuple(state.course),
        best=state.best_step,
        skipped=state.skipped,
        trained=sum(a.size for a in student.weights.values()),
        blocked=student.blocked,
        samples=objective.fitting.count,
        held=objective.held.count,
        seconds=seconds,
    )


class _Run:
    """One run of training, from a beginning or a checkpoint to its end."""

    def __init__(
        self,
        student: Student,
        objective: Objective,
        options: TrainingOptions,
        saving: Saving | None,
        *,
        progress: Callable[[str], None],
        thinning: Thinning | None,
    ) -> None:
        assert saving is None or thinning is None
        self.student, self.objective, self.options = student, objective, options
        self.saving, self.progress, self.thinning = saving, progress, thinning
        together = max(1, min(options.batch // objective.fitting.per_batch, objective.fitting.per_epoch))
        self.accumulate = options.accumulate or together
        self.belongs_to = "" if saving is None else _digest(saving.belongs_to, options, objective.name, student.kept)

    def finished(self) -> TrainingState:
        """Train to the end."""
        saved = self._saved()
        state = self._begun() if saved is None else self._continued(saved)
        every = max(1, self.options.steps // JUDGEMENTS)
        begun = (time.monotonic(), state.step)
        written = begun[0]
        try:
            while state.step < self.options.steps and not self._is_stalled(state, every):
                self._choose(state.step)
                self._step(state)
                if self.thinning is not None and state.step == self.thinning.until:
                    self._hold(state, self.thinning)
                if state.step % every == 0 or state.step == self.options.steps:
                    self._judge(state)
                    self._tell(state, begun)
                if self.is_due(written):
                    self._write(state)
                    written = time.monotonic()
        except KeyboardInterrupt:
            if self.saving is not None and state.is_whole:
                self._write(state, must=True)
                logger.warning("interrupted; --resume goes on from step %d", state.step)
            raise
        return state

    # --- beginning ----------------------------------------------------------------------------------------

    def _begun(self) -> TrainingState:
        weights = self.student.weights
        if self.thinning is not None:
            self.student.mask(self.thinning.target(weights), loose=True)
        before = self._held(weights)
        if not math.isfinite(before):
            raise RunError(
                "the loss of the model is not a finite number before training",
                hint="are its outputs, and the teacher's, finite on all samples?",
            )
        found: dict[float, float] = {}
        rate = self.options.rate
        if rate is None:
            found = self._tried(before)
            rate = min(found, key=lambda tried: found[tried])
            self.progress(f"learning rate {rate:g}, the best of {len(found)} short trials")
        return TrainingState(
            weights=weights,
            optimizer=self.options.optimizing(),
            rate=rate,
            found=found,
            before=before,
            best={n: a.copy() for n, a in weights.items()},
            average={n: a.copy() for n, a in weights.items()} if self.options.average else {},
            best_loss=before,
        )

    def _tried(self, before: float) -> dict[float, float]:
        """Rate -> loss on held-out samples after a short run from the first weights, lowest rate first.

        The rate falls to zero in these runs, too: while it is high, a good one looks bad. Rates rise until they do
        clearly worse than the best before.
        """
        student, first = self.student, {n: a.copy() for n, a in self.student.weights.items()}
        steps = max(3, min(TRIAL_STEPS, round(self.options.steps * TRIAL_SHARE)))
        found: dict[float, float] = {}
        for rung in LADDER:
            rate = rung * (SGD_FACTOR if self.options.optimizer == "sgd" else 1.0)
            self.progress(f"trying learning rate {rate:g}")
            optimizer = self.options.optimizing()
            for step in range(steps):
                loss, gradients = self._gradients(step)
                if not math.isfinite(loss):
                    break
                optimizer.update(student.weights, gradients, scheduled(rate, step, steps, warmup=steps // 5))
                student.silence(student.weights)
            held = self._held(student.weights)
            for name, array in first.items():
                student.weights[name][...] = array
            found[rate] = held if math.isfinite(held) else math.inf
            if found[rate] > TRIAL_WORSE * min(before, *found.values()):
                break
        return found

    # --- zeros --------------------------------------------------------------------------------------------

    def _choose(self, step: int) -> None:
        """Choose the zeros of a step."""
        if self.thinning is not None and step < self.thinning.until:
            masks = self.thinning.chosen(step, self.student.weights)
            if masks is not None:
                self.student.mask(masks, loose=True)

    def _hold(self, state: TrainingState, thinning: Thinning) -> None:
        """Choose the zeros of the end: from here on weights can be the best."""
        self.student.mask(thinning.target(state.weights))
        if state.average:
            self.student.silence(state.average)
        candidate = state.average or state.weights
        state.best, state.best_step = {n: a.copy() for n, a in candidate.items()}, state.step
        state.best_loss = self._held(candidate)

    def _is_open(self, state: TrainingState) -> bool:
        """Whether the zeros may still change."""
        return self.thinning is not None and state.step < self.thinning.until

    # --- steps --------------------------------------------------------------------------------------------

    def _gradients(self, step: int) -> tuple[float, dict[str, Array]]:
        """The mean loss and gradients of the batches of a step; the loss is NaN if a gradient is not finite."""
        total, gradients = 0.0, dict[str, Array]()
        for part in range(self.accumulate):
            found = self.student.gradients(self.objective.batch(step * self.accumulate + part, self.options))
            total += found.loss / self.accumulate
            for name, gradient in found.gradients.items():
                scaled = gradient / self.accumulate if self.accumulate > 1 else gradient
                gradients[name] = gradients[name] + scaled if name in gradients else scaled
        norm = clip_by_norm(gradients, self.options.clip)
        return (total if math.isfinite(norm) else math.nan), gradients

    def _step(self, state: TrainingState) -> None:
        """Change the weights once; what is interrupted in the middle is no state to go on from."""
        loss, gradients = self._gradients(state.step)
        rate = self.options.rate_at(state.step, state.rate) * state.factor
        state.is_whole = False
        state.step += 1
        if math.isfinite(loss):
            if self.thinning is not None and self._is_open(state):
                self.thinning.observe(state.weights, gradients)
            state.optimizer.update(state.weights, gradients, rate)
            if self.thinning is not None and self._is_open(state):
                self.thinning.shrink(state.step, state.weights, rate)
            self.student.silence(state.weights)
            for name, mean in state.average.items():
                mean += (1 - self.options.average) * (state.weights[name] - mean)
            state.in_a_row, state.total, state.counted = 0, state.total + loss, state.counted + 1
        else:
            state.factor, state.skipped, state.in_a_row = state.factor / 2, state.skipped + 1, state.in_a_row + 1
            logger.warning("step %d: the loss is not finite; skipped, the rate is halved", state.step)
        state.is_whole = True
        if state.in_a_row >= MOST_SKIPPED:
            raise RunError(
                f"the loss was not a finite number in {MOST_SKIPPED} steps in a row",
                hint="give a lower --rate, or --clip 1; are all inputs finite?",
            )

    def _held(self, weights: Mapping[str, Array]) -> float:
        """The mean loss of all held-out samples."""
        return mean_loss(self.student, self.objective, weights)

    def _judge(self, state: TrainingState) -> None:
        candidate = state.average or state.weights
        held = self._held(candidate)
        state.course.append(Judgement(state.step, state.total / state.counted if state.counted else math.nan, held))
        state.total, state.counted = 0.0, 0
        if held < state.best_loss and not self._is_open(state):
            state.best_loss, state.best_step = held, state.step
            for name, array in candidate.items():
                state.best[name][...] = array

    def _is_stalled(self, state: TrainingState, every: int) -> bool:
        return 0 < self.options.patience * every <= state.step - state.best_step and not self._is_open(state)

    def _tell(self, state: TrainingState, begun: tuple[float, int]) -> None:
        now = state.course[-1]
        seconds = (time.monotonic() - begun[0]) / max(1, state.step - begun[1])
        left = round(seconds * (self.options.steps - state.step))
        self.progress(
            f"training step {state.step} of {self.options.steps}: loss {now.loss:.3g}, held out {now.held:.3g} "
            f"({state.before:.3g} before), {left // 60}:{left % 60:02d} left"
        )

    # --- checkpoints --------------------------------------------------------------------------------------

    def _saved(self) -> Checkpoint | None:
        if self.saving is None or not self.saving.resume or not self.saving.path.exists():
            return None
        return read_checkpoint(self.saving.path, self.belongs_to)

    def _continued(self, saved: Checkpoint) -> TrainingState:
        state = TrainingState(
            weights=self.student.weights,
            optimizer=self.options.optimizing(),
            rate=0.0,
            found={},
            before=0.0,
            best={},
            average={},
        )
        state.restore(saved)
        self.progress(f"resuming at step {state.step}")
        return state

    def is_due(self, written: float) -> bool:
        """Whether a checkpoint is to be written, after the last one at a time of the clock."""
        return self.saving is not None and time.monotonic() - written > CHECKPOINT_SECONDS

    def _write(self, state: TrainingState, *, must: bool = False) -> None:
        """Write a checkpoint; one that cannot be written is no reason to end a run that goes well."""
        assert self.saving is not None
        try:
            write_checkpoint(self.saving.path, state.checkpoint(), self.belongs_to)
        except OnnxPruneError as error:
            if must:
                raise
            logger.warning("no checkpoint was written: %s", error.message)


def _digest(belongs_to: str, options: TrainingOptions, loss: str, kept: Mapping[str, Array]) -> str:
    """The hash of all that a run depends on."""
    content = hashlib.sha256(f"{belongs_to} {loss} {json.dumps(asdict(options), sort_keys=True, default=str)}".encode())
    for name in sorted(kept):
        content.update(name.encode() + np.packbits(kept[name]).tobytes())
    return content.hexdigest()
