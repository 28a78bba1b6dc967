"""The graph that the runtime's basic optimisations make."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model import Model, load
from onnxprune.runtime import offline
from onnxprune.runtime.offline import CONSTANT_FOLDING, optimised_offline
from tests.graphs.net import Net, run


def foldable() -> Model:
    net = Net()
    c = net.add("Add", net.const(np.float32([1, 2])), net.const(np.float32([3, 4])), name="sum")
    net.output(net.add("Mul", net.add("Identity", net.input(["n", 2])), c, name="y"), ["n", 2])
    return load(net.proto())


def test_constants_are_computed_and_copies_left_out() -> None:
    done = optimised_offline(foldable())
    assert done is not None and [n.op_type for n in done.graph.node] == ["Mul"]
    x = np.float32([[1, -1]])
    assert run(done, feeds={"x": x})["y"].tolist() == [[4, -6]]


def test_an_optimisation_may_be_left_out() -> None:
    done = optimised_offline(foldable(), [CONSTANT_FOLDING])
    assert done is not None and sorted(n.op_type for n in done.graph.node) == ["Add", "Mul"]


def test_what_the_runtime_refuses_is_none() -> None:
    net = Net()
    net.output(net.add("Mystery", net.input([2]), domain="com.example"), [2])
    assert optimised_offline(Model(net.proto())) is None


def test_a_graph_that_is_too_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "LARGEST_TIDIED", 2)
    assert optimised_offline(foldable()) is None
