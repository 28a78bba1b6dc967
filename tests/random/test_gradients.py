"""Gradients of random graphs against central differences: broadcasting, shared weights, computed shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import assume, given

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.errors import RunError
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting
from tests.graphs.random_gradients import differentiable
from tests.random.test_graphs import LONG, quick

X = np.random.default_rng(7).standard_normal((2, 3, 4))
# Of the size of the slope, in double precision and in single; the distances of the differences; and the rounding of a
# loss as a share of it.
TOLERANCES = {True: 1e-6, False: 2e-2}
DISTANCES = {True: (1e-4, 1e-5, 1e-6), False: (3e-2, 1e-2, 3e-3, 1e-3)}
ROUNDING = {True: 1e-14, False: 3e-6}


def check(proto: onnx.ModelProto, weights: list[str], *, double: bool) -> list[bool]:
    """Every weight gets its gradient, alone and together; the forward pass is that of the model.

    Returns:
        For each comparison, whether differences say anything.
    """
    try:
        with Session(Model(proto), threads=1, optimised=False) as session:
            wanted = dict(zip(session.outputs, session.run({"x": X}), strict=True))
    except RunError as error:
        raise AssertionError(f"the generator made a graph that does not run: {error.message}") from error
    assume(all(np.isfinite(w).all() and np.abs(w).max(initial=0) < 1e4 for w in wanted.values()))
    graph = build_vjp(Model(proto), {"x": X}, parameters=weights)
    assert set(graph.gradients) == set(weights), graph.frozen
    rng = np.random.default_rng(1)
    extra = {n: rng.standard_normal(shape).astype(kind) for n, (shape, kind) in graph.targets.items()}
    with GradientSession(graph, Setting(threads=1)) as session:
        feeds = {"x": X, **extra}
        found = session.evaluate(feeds, {})
        projected = sum(float((wanted[n.removeprefix("gradient/")] * w).sum()) for n, w in extra.items())
        assert found.loss == pytest.approx(projected, rel=1e-5, abs=1e-4)
        chosen = [[name] for name in weights] + [weights]
        return [compare(session, feeds, found.gradients, names, double=double) for names in chosen]


def compare(
    session: GradientSession,
    feeds: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    names: list[str],
    *,
    double: bool,
) -> bool:
    """Compare the slope in a random direction; false where differences at three distances do not agree.

    They do not at a corner, and where the loss is so curved that a distance at which it is not is lost in rounding.
    """
    rng, start = np.random.default_rng(2), session.graph.parameters
    steps = {n: rng.standard_normal(start[n].shape) for n in names}
    slope = sum(float((gradients[n] * s).sum()) for n, s in steps.items())
    size = sum(float(np.abs(gradients[n] * s).sum()) for n, s in steps.items())

    def loss(distance: float) -> float:
        return session.loss(feeds, {n: np.asarray(start[n] + distance * s) for n, s in steps.items()})

    noise = ROUNDING[double] * (abs(loss(0.0)) + 1)
    measured = [((loss(d) - loss(-d)) / (2 * d), noise / d) for d in DISTANCES[double]]
    tolerance, apart = TOLERANCES[double], []
    for some in zip(measured, measured[1:], measured[2:], strict=False):
        slopes, rounding = np.array([value for value, _ in some]), some[-1][1]
        scale = max(size, float(np.abs(slopes).max())) + 1e-3
        if np.ptp(slopes) <= tolerance / 4 * scale + rounding and rounding <= tolerance * scale:
            apart.append((float(np.abs(slopes - slope).min()) - rounding) / scale)
    assert not apart or min(apart) <= tolerance, (names, slope, measured)
    return bool(apart)


def _run(examples: int) -> None:
    compared: list[bool] = []

    @quick(examples)
    @given(differentiable())
    def one(made: tuple[onnx.ModelProto, list[str], bool]) -> None:
        compared.extend(check(made[0], made[1], double=made[2]))

    one()
    assert np.mean(compared) > 0.8, "differences say too little about these graphs"


def test_random_gradients() -> None:
    _run(150)


@pytest.mark.long
def test_many_gradients() -> None:
    _run(LONG // 2)
