"""What is dead goes, and nothing else: causes one by one, on layers that are made for them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.shrink import ShrinkOptions, Shrunk, shrink_model
from tests.graphs.net import Net, run


def layers(first: np.ndarray, bias: np.ndarray, second: np.ndarray) -> onnx.ModelProto:
    net = Net()
    h = net.add("Gemm", net.input(["n", 4]), net.const(first, "w1", np.float32), net.const(bias, "b1", np.float32))
    net.output(net.add("MatMul", net.add("Relu", h), net.const(second, "w2", np.float32), name="y"), ["n", 3])
    return net.proto()


def alive() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((4, 6)), rng.standard_normal(6), rng.standard_normal((6, 3))


def shrunk(proto: onnx.ModelProto, **options) -> Shrunk:
    found = shrink_model(load(proto), ShrinkOptions(**options))
    assert found.verdict is not None and found.verdict.ok
    x = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
    if not options:
        one, two = run(proto, feeds={"x": x})["y"], run(to_proto(found.model), feeds={"x": x})["y"]
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    return found


def test_nothing_dead_nothing_done() -> None:
    found = shrunk(layers(*alive()))
    assert not found.changed and found.units == 0 and found.after == found.before


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_a_unit_that_is_constant_goes_into_the_bias(bias: float) -> None:
    first, biases, second = alive()
    first[:, 2], biases[2] = 0, bias
    found = shrunk(layers(first, biases, second))
    assert found.units == 1 and {part.positions for part in found.removed} == {(2,)}


def test_a_unit_that_nothing_reads_goes() -> None:
    first, biases, second = alive()
    second[4] = 0
    assert shrunk(layers(first, biases, second)).units == 1


def test_a_multiple_of_another_unit_goes_and_its_reader_makes_up() -> None:
    first, biases, second = alive()
    first[:, 3], biases[3] = 2.5 * first[:, 1], 2.5 * biases[1]
    assert shrunk(layers(first, biases, second)).units == 1
    first[:, 3], biases[3] = -2.5 * first[:, 1], -2.5 * biases[1]
    assert shrunk(layers(first, biases, second)).units == 0, "Relu does not pass a sign on"


def test_a_tolerance_and_a_range_find_more() -> None:
    first, biases, second = alive()
    first[:, 2], biases[2], second[4] = 1e-9, 0, second[4]
    assert shrunk(layers(first, biases, second)).units == 0
    assert shrunk(layers(first, biases, second), tolerance=1e-6).units == 1
    first, biases, second = (np.abs(part) for part in alive())
    first[:, 5], biases[5] = 1.0, -9.0
    assert shrunk(layers(first, biases, second)).units == 0
    found = shrunk(layers(first, biases, second), ranges={"": (0.0, 2.0)})
    assert found.units == 1 and found.ranges, "at most 8 - 9 enters the Relu"


def test_nodes_that_no_output_depends_on_go() -> None:
    proto = layers(*alive())
    proto.graph.node.append(onnx.helper.make_node("Relu", ["x"], ["unused"]))
    assert shrunk(proto).dead["nodes"] == 1


def test_a_tolerance_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="the tolerance must be at least 0 and below 1, not 1"):
        ShrinkOptions(tolerance=1.0)
