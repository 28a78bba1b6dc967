"""Branches whose weights are fitted together, to what the original has at their end.

A layer that is fitted to its own outputs of the original knows nothing of what the layers behind it still make of
them: a gated layer, the values and keys of an attention, the first convolution of a residual block. So once the last
layer of a branch is fitted, all weights w of the branch are, to the numbers t that the original has at its end: with
f(w) what the branch makes, and J the derivative of f at the present w, the least squares

    min_d |t - f(w) - J d|^2 + l |D d|^2,   D^2 = the mean of diag(J'J) within every weight

by conjugate gradients on the normal equations: a Gauss-Newton step with the damping of Levenberg and Marquardt, exact
for a weight that f is linear in. J'r is the reverse sweep of the branch (`autodiff`), J d a difference. Held-out
samples say how far d is followed, and whether at all; then the last layer is fitted again by itself.

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
import onnx
from onnx import TensorProto

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

# Most weights of layers in a branch: what joins a stream from far away is no block of it.
LAYERS = 8
# Least squares that are solved one after the other, iterations of each, and the damping.
STEPS, ITERATIONS, DAMPING = 3, 20, 1e-2
# Shares of a step that are tried.
SHARES = (1.0, 0.5, 0.25)
# What numbers are: shapes and masks may go past the end of a branch.
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# How far weights are moved for a derivative, relative to their size.
NUDGE = 1e-3


@dataclass(frozen=True, eq=False)
class JointTarget(Target):
    """A branch: what is computed for its end, and not for what is in front of it.

    Attributes:
        last: its last layer.
        end: the tensor that it makes.
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

    def fit(self, removal: Removal, parameters: Parameters, method: Method, evidence: FitEvidence) -> Iterator[Fit]:
        """Fit to the runs that fit, and keep the fit if it does better on the others."""
        lines = removal.groups.tracing.axes[self.end]
        runs: tuple[list[_Run], list[_Run]] = ([], [])
        for judges, visits, _ in evidence.visits():
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
    """Let every branch be fitted together, between two fits of its last layer.

    A branch ends where a residual stream goes on, or at a layer that all numbers pass through on their way to the
    outputs; it starts at the stream, or at the last such place with more than one layer in between.

    Args:
        removal: what was removed.
        parameters: the pruned model.
        found: the layers that are fitted, in graph order.
    """
    if any(parameters.routes):
        return [*found]
    flow, ends, targets = _Flow(removal, parameters), [""], list[Target]()
    for target in found:
        targets.append(target)
        if not isinstance(target, LayerTarget):
            continue
        end, residual = flow.end(target)
        if not residual and not flow.narrows(end):
            continue
        starts = [residual] if residual else reversed(ends)
        between = (flow.between(start, end) for start in starts)
        steps = next((steps for steps in between if flow.layers(steps) > 1), [])
        ends.append(end)
        if 1 < flow.layers(steps) <= LAYERS and end in removal.groups.tracing.axes:
            entering = flow.entering(steps)
            branch = JointTarget(target.view, target.node, last=target, end=end, steps=tuple(steps), entering=entering)
            targets += [branch, target]
    return targets


class _Flow:
    """What is computed from what in the pruned model."""

    def __init__(self, removal: Removal, parameters: Parameters) -> None:
        """Look at the model that `removal` left."""
        self._parameters, self._dtypes = parameters, removal.groups.static.dtypes
        self._course = Course(parameters.model, NO_ROUTE)

    def end(self, last: LayerTarget) -> tuple[str, str]:
        """Where the branch of a layer ends, and the stream that it is added to there; empty for none.

        The end is the sum, or the layer itself, with what alone reads it: a bias, a norm, an activation that is flat
        somewhere.
        """
        residual = last.downstream.residual if last.downstream else ""
        end, met = last.node.output[0], not residual
        while (consumer := self._parameters.only_consumer(end)) is not None and not (met and self._leaves(consumer)):
            end, met = consumer.output[0], met or residual in consumer.input
        return (end, residual) if met else ("", "")

    def _leaves(self, consumer: onnx.NodeProto) -> bool:
        """Whether a node that reads an end is behind it."""
        biased = consumer.op_type == "Add" and any(map(self._parameters.is_stored, consumer.input))
        return not biased and consumer.op_type not in NORMS and flat_bounds(self._parameters, consumer) is None

    def narrows(self, end: str) -> bool:
        """Whether no number goes past a tensor: what does not make it reads no others that do."""
        made = self._course.ancestors([end])
        others = [step for i, step in enumerate(self._course.steps) if i not in made and step.reads]
        inner = {o for step in others for o in step.output}
        outer = {name for step in others for name in step.reads} - inner - {end}
        floats = (n for n in outer if not self._parameters.is_constant(n) and self._dtypes.get(n) in FLOATS)
        return bool(end) and next(floats, None) is None

    def between(self, start: str, end: str) -> list[int]:
        """The steps that make a tensor, without those that make what is in front of it."""
        outside = self._course.ancestors([start]) if start else set()
        steps = self._course.steps
        return sorted(i for i in self._course.ancestors([end]) if i not in outside or not steps[i].reads)

    def layers(self, steps: Sequence[int]) -> int:
        """How many weights of layers steps read."""
        read = {name for i in steps for name in self._course.steps[i].reads}
        return sum(self._parameters.is_own(n) and len(self._parameters.value(n).shape) > 1 for n in read)

    def entering(self, steps: Sequence[int]) -> tuple[str, ...]:
        """What steps read of others, or of the inputs."""
        made = {o for i in steps for o in self._course.steps[i].output}
        read = {name for i in steps for name in self._course.steps[i].reads} - made
        return tuple(sorted(name for name in read if not self._parameters.is_stored(name)))


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
        nudge = NUDGE * float(np.linalg.norm(weights)) / max(float(np.linalg.norm(way)), 1e-30)
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
