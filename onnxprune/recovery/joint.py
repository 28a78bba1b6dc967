"""Branches of a residual stream whose weights are fitted together, towards the stream that the original has behind them.

A layer that is fitted to its own outputs of the original knows nothing of what the layers behind it can still make of
them: a gated layer, the values of an attention, the first convolution of a residual block. So once the last layer of a
branch is fitted, all weights w of the branch are, to the sum f(w) at its end: with J the derivative of f at the present
w, and t the sum in the original, the least squares

    min_d |t - f(w) - J d|^2 + l |D d|^2,   D^2 = the mean of diag(J'J) within every weight

by conjugate gradients on the normal equations (a Gauss-Newton step with the damping of Levenberg and Marquardt; exact in
one step for a weight that the sum is linear in). J'r is the reverse sweep of the branch (`autodiff`), J d a difference.
Held-out samples say how far d is followed, and whether at all; the last layer is then fitted again by itself.

Sources: Marquardt, "An Algorithm for Least-Squares Estimation of Nonlinear Parameters", 1963; Paige and Saunders,
"LSQR", 1982, section 7.1 (conjugate gradients for least squares).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import ModelError, RunError
from onnxprune.layers import NORMS, Parameters
from onnxprune.model.run_order import NO_ROUTE, Course
from onnxprune.recovery.downstream import flat_bounds
from onnxprune.recovery.fits import Method
from onnxprune.recovery.targets import Fit, FitEvidence, LayerTarget, Target, lost_groups
from onnxprune.rewriting import Removal
from onnxprune.runtime import Session
from onnxprune.typing import Array

if TYPE_CHECKING:
    from onnxprune.autodiff import GradientSession

# Most nodes with weights in a branch: what joins a stream from far away is no block of it.
LAYERS = 8
# Least squares that are solved one after the other, iterations of each, and the damping.
STEPS, ITERATIONS, DAMPING = 3, 20, 1e-2
# Shares of a step that are tried.
SHARES = (1.0, 0.5, 0.25)
# How far weights are moved for a derivative, relative to their size.
NUDGE = 1e-3


@dataclass(frozen=True, eq=False)
class JointTarget(Target):
    """A branch of a residual stream: what is computed for its end, and not for the stream in front of it.

    Attributes:
        last: its last layer.
        end: the sum, with the norm or the activation that alone reads it.
        steps: places of its nodes among the steps of the pruned model.
        entering: what it reads from outside.
    """

    last: LayerTarget
    end: str
    steps: tuple[int, ...]
    entering: tuple[str, ...]

    @property
    def tapped_tensors(self) -> tuple[list[str], list[str]]:
        """The end in the original; what enters in the pruned model."""
        return [self.end], [*self.entering]

    @property
    def renewed(self) -> tuple[Sequence[str], Sequence[str]]:
        """All that the layer at the end of the branch waits for."""
        return [self.last.new.input], self.entering

    def fit(self, removal: Removal, parameters: Parameters, method: Method, evidence: FitEvidence) -> Iterator[Fit]:
        """Fit to the runs that fit, and keep the fit if it does better on the others."""
        lines = removal.groups.tracing.axes[self.end]
        runs: tuple[list[_Run], list[_Run]] = ([], [])
        for judges, visits, _ in evidence.visits(1):
            for (whole,), news in visits:
                given = dict(zip(self.entering, news, strict=True))
                runs[judges].append(_Run(given, removal.sliced(whole, lines).astype(np.float64)))
        course = Course(parameters.model, NO_ROUTE)
        if not all(runs):
            return
        with ExitStack() as stack:
            try:
                branch = stack.enter_context(_Branch.of(self, course, parameters, runs[0] + runs[1]))
            except (ModelError, RunError):  # a branch that has no gradient is left as it is
                return
            before = branch.error(branch.start, runs[1])
            weights, after = _fitted(branch, runs, before)
        if kept := after < before:
            for name, value in branch.unpacked(weights).items():
                parameters.store(name, value)
        energy = sum(float(np.square(run.wanted - run.wanted.mean()).sum()) for run in runs[1]) or 1.0
        yield Fit(self.view.name, before / energy, after / energy, kept, lost_groups(removal, self.last.old.input))


def with_branches(removal: Removal, parameters: Parameters, found: Sequence[Target]) -> list[Target]:
    """Let every branch of a residual stream be fitted together, between two fits of its last layer.

    Args:
        removal: what was removed.
        parameters: the pruned model.
        found: the layers that are fitted, in graph order.
    """
    targets: list[Target] = []
    for target in found:
        targets.append(target)
        branch = _branch(removal, parameters, target) if isinstance(target, LayerTarget) else None
        if branch is not None:
            targets += [branch, target]
    return targets


def _branch(removal: Removal, parameters: Parameters, last: LayerTarget) -> JointTarget | None:
    """The branch that a layer ends; None if it ends none, or one that is too long."""
    if last.downstream is None or not last.downstream.residual or any(parameters.routes):
        return None
    residual, end = last.downstream.residual, last.node.output[0]
    summed = False
    while (consumer := parameters.only_consumer(end)) is not None:
        if summed and consumer.op_type not in NORMS and flat_bounds(parameters, consumer) is None:
            break
        summed = summed or residual in consumer.input
        end = consumer.output[0]
    course = Course(parameters.model, NO_ROUTE)
    if not summed or end not in removal.groups.tracing.axes:
        return None
    inside, outside = course.ancestors([end]), course.ancestors([residual])
    steps = sorted(i for i in inside if i not in outside or not course.steps[i].reads)
    made = {o for i in steps for o in course.steps[i].output}
    read = sorted({name for i in steps for name in course.steps[i].reads} - made)
    entering = tuple(name for name in read if not parameters.is_stored(name))
    layers = {n for i in steps for n in course.steps[i].reads if parameters.is_own(n) and parameters.value(n).ndim > 1}
    if not 1 < len(layers) <= LAYERS or not course.stacked.isdisjoint(entering):
        return None
    return JointTarget(last.view, last.node, last, end, tuple(steps), entering)


# --- least squares ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of a branch: what enters it, and what should leave it."""

    given: Mapping[str, Array]
    wanted: Array


def _fitted(branch: _Branch, runs: tuple[list[_Run], list[_Run]], error: float) -> tuple[Array, float]:
    """The weights after all steps that lower the error on the runs that judge, and that error."""
    weights = branch.start
    for _ in range(STEPS):
        step = _step(branch, weights, runs[0])
        tried = ((branch.error(weights + share * step, runs[1]), share) for share in SHARES)
        least, share = next((one for one in tried if one[0] < error), (error, 0.0))
        if not share:
            break
        weights, error = weights + share * step, least
    return weights, error


def _step(branch: _Branch, weights: Array, runs: Sequence[_Run]) -> Array:
    """The step that solves the least squares of the branch's derivative, by conjugate gradients."""
    made = branch.outputs(weights, runs)
    wrong = [run.wanted - y for run, y in zip(runs, made, strict=True)]
    scale = branch.scale(weights, runs)
    slope = scale * branch.back(weights, runs, wrong)
    found, search, size = np.zeros_like(slope), slope, float(slope @ slope)
    for _ in range(ITERATIONS):
        if size <= 0:
            break
        way = scale * search
        nudge = NUDGE * float(np.linalg.norm(weights) / max(np.linalg.norm(way), 1e-30))
        moved = [(y - x) / nudge for x, y in zip(made, branch.outputs(weights + nudge * way, runs), strict=True)]
        length = size / (sum(float(np.square(y).sum()) for y in moved) + DAMPING * float(search @ search))
        found = found + length * search
        wrong = [left - length * y for left, y in zip(wrong, moved, strict=True)]
        slope = scale * branch.back(weights, runs, wrong) - DAMPING * found
        size, before = float(slope @ slope), size
        search = slope + size / before * search
    return np.asarray(scale * found)


class _Branch:
    """A branch as a function of its weights, which are one line of numbers."""

    def __init__(self, end: str, forward: Session, weights: Mapping[str, Array]) -> None:
        """Take a session whose inputs are the weights, too; sessions for gradients come by `add`."""
        self.weights, self._end, self._forward = weights, end, forward
        self._gradients: dict[object, GradientSession] = {}
        self._stack = ExitStack()
        self._stack.enter_context(forward)

    @classmethod
    def of(cls, target: JointTarget, course: Course, parameters: Parameters, runs: Sequence[_Run]) -> _Branch:
        """The branch in the pruned model.

        Raises:
            ModelError: it has no gradient, or no weight of its own.
        """
        from onnxprune.autodiff import GradientSession, build_vjp, default_parameters  # most repairs take no gradients

        part = course.subgraph(target.steps, runs[0].given, [target.end])
        stored = {n: part.array(n) for n in part.initializers if parameters.is_own(n)}
        names = [n for n in default_parameters(part.proto.graph.node, stored) if stored[n].dtype == np.float32]
        if not names:
            raise ModelError(f"the branch that ends in {target.end!r} has no weights")
        graphs = {}
        for run in runs:
            if (key := _shapes(run)) not in graphs:
                graphs[key] = build_vjp(part, run.given, parameters=names, freeze=True)
        names = [n for n in names if all(n in graph.gradients for graph in graphs.values())]
        weights = {n: stored[n] for n in names}
        forward = Session(course.subgraph(target.steps, {**runs[0].given, **weights}, [target.end]))
        branch = cls(target.end, forward, weights)
        for key, graph in graphs.items():
            branch._gradients[key] = branch._stack.enter_context(GradientSession(graph))
        return branch

    @cached_property
    def start(self) -> Array:
        """The weights as they are."""
        return self.packed(self.weights)

    def packed(self, values: Mapping[str, Array]) -> Array:
        """Values of all weights in one line."""
        return np.concatenate([np.asarray(values[name], np.float64).reshape(-1) for name in self.weights])

    def unpacked(self, line: Array) -> dict[str, Array]:
        """The values of every weight."""
        ends = np.cumsum([value.size for value in self.weights.values()])[:-1]
        parts = zip(self.weights.items(), np.split(line, ends), strict=True)
        return {name: part.reshape(value.shape).astype(np.float32) for (name, value), part in parts}

    def outputs(self, weights: Array, runs: Sequence[_Run]) -> list[Array]:
        """What the branch makes of every run."""
        values = self.unpacked(weights)
        fed = ({**run.given, **values} for run in runs)
        return [self._forward.run({n: one[n] for n in self._forward.inputs})[0].astype(np.float64) for one in fed]

    def error(self, weights: Array, runs: Sequence[_Run]) -> float:
        """Squared error of all runs."""
        made = self.outputs(weights, runs)
        return sum(float(np.square(run.wanted - y).sum()) for run, y in zip(runs, made, strict=True))

    def back(self, weights: Array, runs: Sequence[_Run], wrong: Sequence[Array]) -> Array:
        """Gradients of all weights, from those of the outputs."""
        values, total = self.unpacked(weights), np.zeros_like(weights)
        for run, one in zip(runs, wrong, strict=True):
            session = self._gradients[_shapes(run)]
            total += self.packed(session.vjp(run.given, {self._end: one.astype(np.float32)}, values))
        return total

    def scale(self, weights: Array, runs: Sequence[_Run]) -> Array:
        """One over the root of the mean of diag(J'J) within every weight, by one draw of signs (Hutchinson 1989)."""
        rng = np.random.default_rng(0)
        signs = [rng.integers(0, 2, run.wanted.shape) * 2.0 - 1 for run in runs]
        squares = self.unpacked(np.square(self.back(weights, runs, signs)))
        return self.packed({n: np.full(v.shape, 1 / np.sqrt(max(v.mean(), 1e-30))) for n, v in squares.items()})

    def __enter__(self) -> _Branch:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _shapes(run: _Run) -> object:
    return tuple((name, value.shape) for name, value in sorted(run.given.items()))
