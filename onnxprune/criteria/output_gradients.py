"""Gradients of a model's outputs, without labels, for criteria.

Which loss, when nobody says what is right? The distance to the model's own outputs has no slope at the model itself.
What counts is how far the outputs would move: for outputs y and a small change d of an activation or a weight, the
expected square of r . J d over random signs r is |J d|^2, the squared movement of all outputs to first order. So the
gradients are those of r . y with signs of their own for every sample (Hutchinson 1989), and a square of a sum over
samples is, on average, the sum of the squares of the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.criteria.registry import Evidence
from onnxprune.errors import ModelError
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Runs

if TYPE_CHECKING:
    from onnxprune.autodiff import GradientSession, StepResult, TrainingGraph

# Draws of signs for every run.
DRAWS = 2


def movements(
    evidence: Evidence, rng: np.random.Generator, taps: Mapping[str, int] | None = None
) -> Iterator[StepResult]:
    """Gradients of randomly signed outputs, for every run and draw.

    Args:
        evidence: the traced model and its inputs.
        rng: draws the signs.
        taps: tensor -> axis of its units.

    Raises:
        ModelError: the model has no gradient.
    """
    from onnxprune.autodiff import GradientSession  # most criteria take no gradients, and need not wait for it

    graphs: dict[object, GradientSession] = {}
    with ExitStack() as stack:
        for run in evidence.runs:
            key = tuple((name, array.shape) for name, array in run.items())
            if key not in graphs:
                graphs[key] = stack.enter_context(GradientSession(_graph(evidence, run, taps or {})))
            session = graphs[key]
            for _ in range(DRAWS):
                signs = {n: _signs(rng, shape, dtype) for n, (shape, dtype) in session.graph.targets.items()}
                evidence.progress("taking gradients")
                yield session.evaluate({**run, **signs}, session.graph.parameters)


def mean_square_gradients(
    groups: Groups, runs: Runs, rng: np.random.Generator, progress: Callable[[str], None]
) -> dict[str, Array]:
    """Take the gradients of all weights.

    Args:
        groups: the traced model.
        runs: calibration inputs.
        rng: draws the signs of the outputs.
        progress: is told about the gradients.

    Returns:
        Name of a weight -> mean square of its gradient, over runs and draws, float64 of its shape: times the square of
        a weight, the squared movement of all outputs when that weight goes, to first order.

    Raises:
        ModelError: the model has no gradient.
    """
    total = dict[str, Array]()
    for found in movements(Evidence(groups, runs, progress=progress), rng):
        for name, gradient in found.gradients.items():
            total[name] = total.get(name, 0.0) + np.square(gradient, dtype=np.float64)
    return {name: squares / (DRAWS * len(runs)) for name, squares in total.items()}


def _graph(evidence: Evidence, run: Mapping[str, Array], taps: Mapping[str, int]) -> TrainingGraph:
    from onnxprune.autodiff import build_vjp

    try:
        return build_vjp(evidence.groups.model, run, taps=taps, freeze=True)
    except ModelError as error:
        raise ModelError(
            f"this needs gradients of the model: {error.message}", hint="take what needs none, as wanda"
        ) from error


def _signs(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    return (rng.integers(0, 2, shape) * 2 - 1).astype(dtype)
