"""Models on which ONNX Runtime's own optimiser fails: they are proven without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.errors import GoalMissed, RunError
from onnxprune.model import load
from onnxprune.runtime import Session
from tests.graphs.net import Net


def network() -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["batch", 6]), net.weight(6, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), ["batch", 4])
    return net.proto()


def width(content: bytes) -> int:
    return next(t.dims[1] for t in onnx.load_from_string(content).graph.initializer if t.name == "w1")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bool]], None]:
    """Let the optimiser fail on models that a function names."""
    real = ort.InferenceSession

    def fail_on(which: Callable[[bytes], bool]) -> None:
        def session(source: Any, options: Any, **given: Any) -> Any:
            off = options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            if not off and which(source):
                raise RuntimeError("the optimiser fails")
            return real(source, options, **given)

        monkeypatch.setattr(ort, "InferenceSession", session)

    return fail_on


def test_a_session_goes_without(failing: Any) -> None:
    failing(lambda source: True)
    with Session(load(network())) as session:
        assert session.optimiser_failed
        assert session.run({"x": np.ones((2, 6), np.float32)})[0].shape == (2, 4)
    broken = network()
    broken.graph.node[1].op_type = "Mystery"
    broken.graph.node[1].domain = "com.example"
    with pytest.raises(RunError, match="the optimiser fails"):
        Session(load(broken))


def test_the_proof_goes_without_and_says_so(failing: Any) -> None:
    failing(lambda source: True)
    data = {"x": np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)}
    verdict = onnxprune.prune(network(), 0.5, data=[data]).report.verdict
    assert verdict.ok
    assert "the original without ONNX Runtime's optimiser, which fails on it" in verdict.checks


def test_it_is_not_said_where_it_works() -> None:
    assert not any("optimiser" in said for said in onnxprune.prune(network(), 0.5).report.verdict.checks)


def test_a_result_on_which_only_it_fails_is_refused(failing: Any) -> None:
    failing(lambda source: width(source) == 4)
    with pytest.raises(GoalMissed, match="optimiser fails on it, and not on the original"):
        onnxprune.prune(network(), 0.5)
