"""Layers that take over what removed units gave, without loss."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model import to_proto
from tests.graphs.net import Net, array_of
from tests.pipelines.test_shrink import alive, layers, shrunk


def test_a_constant_goes_into_a_bias_that_is_there() -> None:
    first, biases, second = alive()
    first[:, 2], biases[2] = 0, 2.0
    net = Net()
    h = net.add("Gemm", net.input(["n", 4]), net.const(first, "w1", np.float32), net.const(biases, "b1", np.float32))
    last = net.const(np.ones(3), "b2", np.float32)
    net.output(net.add("Gemm", net.add("Relu", h), net.const(second, "w2", np.float32), last, name="y"), ["n", 3])
    done = to_proto(shrunk(net.proto()).model)
    np.testing.assert_allclose(array_of(done, "b2"), 1 + 2.0 * second[2], rtol=1e-5)
    assert len(done.graph.node) == 3, "nothing is added"


def test_a_constant_is_added_where_there_is_no_bias() -> None:
    first, biases, second = alive()
    first[:, 2], biases[2] = 0, 2.0
    done = to_proto(shrunk(layers(first, biases, second)).model)
    assert [n.op_type for n in done.graph.node] == ["Gemm", "Relu", "MatMul", "Add"]
    assert done.graph.node[-1].output[0] == "y", "the output keeps its name"


@pytest.mark.parametrize("factor", [2.5, 0.5])
def test_a_partner_takes_over_the_weight_of_its_multiple(factor: float) -> None:
    first, biases, second = alive()
    first[:, 3], biases[3] = factor * first[:, 1], factor * biases[1]
    done = to_proto(shrunk(layers(first, biases, second)).model)
    kept = array_of(done, "w2")
    one, both = second[1] + factor * second[3], second[3] + second[1] / factor
    assert any(np.allclose(row, one, rtol=1e-4) or np.allclose(row, both, rtol=1e-4) for row in kept)


def test_zeros_are_taken_over_without_a_trace() -> None:
    first, biases, second = alive()
    first[:, 2], biases[2] = 0, -1.0
    done = to_proto(shrunk(layers(first, biases, second)).model)
    assert [n.op_type for n in done.graph.node] == ["Gemm", "Relu", "MatMul"]
    np.testing.assert_allclose(array_of(done, "w2"), np.delete(second, 2, axis=0), rtol=1e-6)
