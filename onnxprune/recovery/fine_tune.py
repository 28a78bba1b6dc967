"""Training by gradient steps: what a closed form leaves, small steps along the gradient bring nearer.

The weights that are best on held-out samples are kept, so the result is never worse there than the beginning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace

import numpy as np

from onnxprune.autodiff import clip_by_norm, scheduled
from onnxprune.calibration import Feeds, fixed_batch
from onnxprune.errors import OnnxPruneError, RunError
from onnxprune.model import Model
from onnxprune.progress import WorkPart
from onnxprune.recovery import learning_rate
from onnxprune.recovery.batch_parts import gradients_by, parts_of, shares_of
from onnxprune.recovery.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from onnxprune.recovery.norm_statistics import with_better_statistics
from onnxprune.recovery.objectives import Objective
from onnxprune.recovery.saving import Saving
from onnxprune.recovery.student import Student, check_globs
from onnxprune.recovery.thinning import Masks, Thinning
from onnxprune.recovery.training_options import TrainingOptions
from onnxprune.recovery.training_state import Judgement, Training, TrainingState
from onnxprune.runtime.workers import width
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

# Wall time between two checkpoints.
CHECKPOINT_SECONDS = 120.0
# Times that held-out samples judge a run, at even steps.
JUDGEMENTS = 25
# Steps without a finite loss after which a run is given up; each of them halves the rate.
MOST_SKIPPED = 10
# What a checkpoint calls the state of what makes the model sparser, its masks, and whether these are loose.
THINNING, MASKS, LOOSE = "thinning", "masks", "is_loose"


def fine_tune_model(
    model: Model,
    objective: Objective,
    options: TrainingOptions,
    *,
    masks: Masks | Thinning | None = None,
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
        progress: is told about every judgement.

    Returns:
        The model with the weights that were best on held-out samples, and what was done.

    Raises:
        ModelError: no weight can be trained, or an operator has no gradient.
        RunError: the loss is not finite.
        UsageError: a glob or a mask fits no weight, or a checkpoint is of another run.
    """
    start = time.monotonic()
    student = Student(model, objective.loss, objective.batch(0, options), options)
    try:
        check_globs("--rate-for", options.rates, list(student.weights))
        thinning = masks if isinstance(masks, Thinning) else None
        student.mask({} if isinstance(masks, Thinning) else masks or {})
        state = _Run(student, objective, options, progress=progress, thinning=thinning).finished()
        best = student.trained(state.best) if state.best_step or student.kept else model
    finally:
        student.close()
    if options.norm_statistics:
        best, state.best_loss = with_better_statistics(best, objective, options, state.best_loss, progress=progress)
    return best, _account(student, objective, state, time.monotonic() - start)


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
        *,
        progress: Callable[[str], None],
        thinning: Thinning | None,
    ) -> None:
        self.student, self.objective, self.options = student, objective, options
        self.saving, self.progress, self.thinning = options.saving, progress, thinning
        together = max(1, min(options.batch // objective.fitting.per_batch, objective.fitting.per_epoch))
        self.accumulate = options.accumulate or together
        is_whole = fixed_batch(student.model) or not objective.fitting.is_divisible
        self.parts = 1 if is_whole else options.parts or width(options.workers)
        self.every = max(1, options.steps // JUDGEMENTS)
        self.belongs_to = ""
        if self.saving is not None:
            self.belongs_to = _digest(self.saving, replace(options, parts=self.parts), objective.name, student.kept)
        self.written = time.monotonic()

    def finished(self) -> TrainingState:
        """Train to the end."""
        with gradients_by(self.student, self.objective, self.options, self.parts) as self.evaluate:
            return self._trained()

    def _trained(self) -> TrainingState:
        state = self._first()
        try:
            self._prepare(state)
            while True:
                if self._is_to_be_judged(state):
                    self._judge(state)
                    self._tell(state)
                if state.step >= self.options.steps or self._is_stalled(state):
                    break
                self._step(state)
                self._keep(state)
        except KeyboardInterrupt:
            if self.saving is not None and state.is_whole:
                self._write(state, must=True)
                logger.warning("interrupted; --resume goes on from step %d", state.step)
            raise
        self._keep(state, now=True)
        return state

    # --- beginning ----------------------------------------------------------------------------------------

    def _first(self) -> TrainingState:
        """The state to begin with: that of a checkpoint, or one in which nothing is known yet."""
        weights = self.student.weights
        state = TrainingState(
            weights=weights,
            optimizer=self.options.optimizing(),
            best={n: a.copy() for n, a in weights.items()},
            average={n: a.copy() for n, a in weights.items()} if self.options.average else {},
        )
        if self.saving is not None and self.saving.resume and self.saving.path.exists():
            saved = read_checkpoint(self.saving.path, self.belongs_to)
            state.restore(saved)
            if self.thinning is not None:
                self.thinning.restore(saved.arrays.get(THINNING, {}))
                self.student.mask(saved.arrays.get(MASKS, {}), loose=saved.numbers[LOOSE])
            self.progress(f"resuming at step {state.step}")
        elif self.thinning is not None:
            self.student.mask(self.thinning.target(weights), loose=True)
        return state

    def _prepare(self, state: TrainingState) -> None:
        """Judge the model as it is, and find the rate; what a checkpoint knows of it is not done again."""
        if math.isnan(state.before):
            state.before = state.best_loss = self._held(state.weights)
        if not math.isfinite(state.before):
            raise RunError(
                "the loss of the model is not a finite number before training",
                hint="are its outputs, and the teacher's, finite on all samples?",
            )
        if not math.isnan(state.rate):
            return
        if self.options.rate is not None:
            state.rate = self.options.rate
            return
        state.rate = learning_rate.rate_by_trials(
            state.found, state.before, lambda rate: self._tried(state, rate), self.options.optimizer_name
        )
        self.progress(f"learning rate {state.rate:g}, by {len(state.found)} short trials")
        self._keep(state, now=True)

    def _tried(self, state: TrainingState, rate: float) -> float:
        """The loss on held-out samples after a short run; the weights are in the end what they were."""
        self._keep(state)
        self.progress(f"trying learning rate {rate:g}")
        student, first = self.student, {n: a.copy() for n, a in self.student.weights.items()}
        steps = learning_rate.trial_steps(self.options.steps)
        optimizer = self.options.optimizing()
        try:
            for step in range(steps):
                loss, gradients = self._gradients(step)
                if not math.isfinite(loss):
                    break
                optimizer.update(student.weights, gradients, scheduled(rate, step, steps, warmup=steps // 5))
                student.silence(student.weights)
            held = self._held(student.weights)
        finally:
            for name, array in first.items():
                student.weights[name][...] = array
        return held if math.isfinite(held) else math.inf

    # --- zeros --------------------------------------------------------------------------------------------

    def _choose(self, state: TrainingState) -> None:
        """Choose the zeros of a step, once."""
        if self.thinning is None or not self._is_open(state) or state.chosen == state.step:
            return
        state.is_whole = False
        masks = self.thinning.chosen(state.step, state.weights)
        if masks is not None:
            self.student.mask(masks, loose=True)
        state.chosen, state.is_whole = state.step, True

    def _hold(self, state: TrainingState) -> None:
        """Choose the zeros of the end, where this is the step for it: from here on weights can be the best."""
        if self.thinning is None or state.step != self.thinning.until:
            return
        self.student.mask(self.thinning.target(state.weights))
        if state.average:
            self.student.silence(state.average)
        state.best, state.best_step = {n: a.copy() for n, a in state.candidate.items()}, state.step
        state.best_loss = math.inf

    def _is_open(self, state: TrainingState) -> bool:
        """Whether the zeros may still change."""
        return self.thinning is not None and state.step < self.thinning.until

    # --- steps --------------------------------------------------------------------------------------------

    def _gradients(self, step: int) -> tuple[float, dict[str, Array]]:
        """The mean loss and gradients of the batches of a step; the loss is NaN if a gradient is not finite."""
        total, gradients, shares = 0.0, dict[str, Array](), list[float]()

        def parts() -> Iterator[Feeds]:
            for number in range(step * self.accumulate, (step + 1) * self.accumulate):
                cut = parts_of(self.objective.batch(number, self.options), self.parts)
                shares.extend(share / self.accumulate for share in shares_of(cut, self.objective.size))
                yield from cut

        for number, found in enumerate(self.evaluate(parts())):
            share = shares[number]
            if not share:  # nothing in it counts
                continue
            total += found.loss * share
            for name, gradient in found.gradients.items():
                scaled = gradient * share if share != 1 else gradient
                gradients[name] = gradients[name] + scaled if name in gradients else scaled
        norm = clip_by_norm(gradients, self.options.clip)
        return (total if math.isfinite(norm) else math.nan), gradients

    def _step(self, state: TrainingState) -> None:
        """Change the weights once; what is interrupted in the middle is no state to go on from."""
        self._choose(state)
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
        self._hold(state)
        state.is_whole = True
        if state.in_a_row >= MOST_SKIPPED:
            raise RunError(
                f"the loss was not a finite number in {MOST_SKIPPED} steps in a row",
                hint="give a lower --rate, or --clip 1; are all inputs finite?",
            )

    def _held(self, weights: Mapping[str, Array]) -> float:
        """The mean loss of all held-out samples."""
        return self.objective.held_loss(lambda feeds: self.student.loss(feeds, weights))

    def _is_to_be_judged(self, state: TrainingState) -> bool:
        """Whether the state is one to judge, and was not judged yet."""
        ends = {self.options.steps} | ({self.thinning.until} if self.thinning is not None else set())
        is_due = state.step > 0 and (state.step % self.every == 0 or state.step in ends)
        return is_due and (not state.course or state.course[-1].step < state.step)

    def _judge(self, state: TrainingState) -> None:
        held = self._held(state.candidate)
        state.is_whole = False
        state.course.append(Judgement(state.step, state.total / state.counted if state.counted else math.nan, held))
        state.total, state.counted = 0.0, 0
        if held < state.best_loss and not self._is_open(state):
            state.best_loss, state.best_step = held, state.step
            for name, array in state.candidate.items():
                state.best[name][...] = array
        state.is_whole = True

    def _is_stalled(self, state: TrainingState) -> bool:
        return 0 < self.options.patience * self.every <= state.step - state.best_step and not self._is_open(state)

    def _tell(self, state: TrainingState) -> None:
        now = state.course[-1]
        more = f": loss {now.loss:.3g}, held out {now.held:.3g} ({state.before:.3g} before)"
        self.progress(WorkPart.of("training step", state.step, self.options.steps, more, finished=True))

    # --- checkpoints --------------------------------------------------------------------------------------

    def is_due(self, written: float) -> bool:
        """Whether a checkpoint is to be written, after the last one at a time of the clock."""
        return self.saving is not None and time.monotonic() - written > CHECKPOINT_SECONDS

    def _keep(self, state: TrainingState, *, now: bool = False) -> None:
        """Write a checkpoint, if it is time for one."""
        if self.saving is not None and (now or self.is_due(self.written)):
            self._write(state)
            self.written = time.monotonic()

    def _write(self, state: TrainingState, *, must: bool = False) -> None:
        """Write a checkpoint; one that cannot be written is no reason to end a run that goes well."""
        assert self.saving is not None
        checkpoint = state.checkpoint()
        if self.thinning is not None:
            extra = {THINNING: self.thinning.state(), MASKS: self.student.kept}
            numbers = {**checkpoint.numbers, LOOSE: self.student.is_loose}
            checkpoint = Checkpoint({**checkpoint.arrays, **extra}, numbers)
        try:
            write_checkpoint(self.saving.path, checkpoint, self.belongs_to)
        except OnnxPruneError as error:
            if must:
                raise
            logger.warning("no checkpoint was written: %s", error.message)


def _digest(saving: Saving, options: TrainingOptions, loss: str, kept: Mapping[str, Array]) -> str:
    """The hash of all that a run depends on."""
    given = asdict(replace(options, saving=None, workers=1))
    told = json.dumps(given, sort_keys=True, default=lambda value: getattr(value, "__qualname__", repr(value)))
    about = f"{saving.belongs_to} {loss} {told}"
    content = hashlib.sha256(about.encode())
    for name in sorted(kept):
        content.update(name.encode() + np.packbits(kept[name]).tobytes())
    return content.hexdigest()
