"""Runs in another process: what ends that process ends no more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import Options, api
from onnxprune.errors import RunError
from onnxprune.model import load
from onnxprune.runtime import trial
from tests.graphs.net import FLOAT, Net

CRASH = "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 11)"


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process ends in a segmentation fault whatever it runs."""
    monkeypatch.setattr(trial, "CODE", CRASH)
    monkeypatch.setattr(trial, "_process", None)


def network() -> onnx.ModelProto:
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 3]), net.weight(3, 4)), ["n", 4])
    return net.proto()


def two_branches() -> onnx.ModelProto:
    """A model with an If on an input, whose branches read the same weights otherwise."""
    net = Net()
    x = net.add("MatMul", net.input(["n", 6]), net.weight(6, 8, name="w1"))
    choice = net.input([], name="c", dtype=onnx.TensorProto.BOOL)
    bodies = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Tanh")):
        out = helper.make_tensor_value_info(f"{name}_y", FLOAT, ["n", 8])
        bodies[name] = helper.make_graph([helper.make_node(op, [x], [f"{name}_y"])], name, [], [out])
    y = net.add("If", choice, **bodies)
    net.output(net.add("MatMul", y, net.weight(8, 4, name="w2")), ["n", 4])
    return net.proto()


def test_a_run_that_goes_well_and_one_that_does_not() -> None:
    model = load(network())
    for _ in range(2):
        trial.check_run(model, {"x": np.ones((2, 3), np.float32)}, 10.0)
        with pytest.raises(RunError, match="ONNX Runtime failed"):
            trial.check_run(model, {"x": np.ones((2, 5), np.float32)}, 10.0)


@pytest.mark.usefixtures("crashing")
def test_a_crash_is_an_error_each_time() -> None:
    for _ in range(2):
        with pytest.raises(RunError, match=r"ended its process \(exit code -11\)"):
            trial.check_run(load(network()), {"x": np.ones((2, 3), np.float32)}, 10.0)


def test_both_branches_are_proven() -> None:
    verdict = api.run(load(two_branches()), Options(ratio=0.5)).verdict
    assert verdict is not None and verdict.ok and not any("does not run" in said for said in verdict.checks)


@pytest.mark.usefixtures("crashing")
def test_a_branch_that_crashes_the_runtime_is_left_out_and_said() -> None:
    verdict = api.run(load(two_branches()), Options(ratio=0.5)).verdict
    assert verdict is not None and verdict.ok
    # The branch that the inputs take runs with the rest, without being forced.
    assert sum("does not run on these inputs" in said for said in verdict.checks) == 1
