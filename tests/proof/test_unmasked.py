"""The proof that a model gives what the original itself gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.proof.unmasked import Trials, equals
from tests.graphs.net import Net


def proto(scale: float = 1.0, name: str = "y") -> onnx.ModelProto:
    net = Net()
    w = scale * np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    net.output(net.add("MatMul", net.input(["n", 4]), net.const(w.astype(np.float32), "w"), name=name), ["n", 3])
    return net.proto()


def clipped() -> onnx.ModelProto:
    """The same where the input lies between 0 and 1."""
    other = proto()
    other.graph.node[0].input[0] = "c"
    bounds = [onnx.numpy_helper.from_array(np.float32(v), n) for v, n in ((0, "low"), (1, "high"))]
    other.graph.initializer.extend(bounds)
    other.graph.node.insert(0, onnx.helper.make_node("Clip", ["x", "low", "high"], ["c"]))
    return other


def verdict(other: onnx.ModelProto, trials: Trials | None = None, **given: float):
    return equals(api.trace(proto()), Model(other), trials or Trials(), **given)


def test_the_same_model_is_equal_and_it_says_on_what() -> None:
    found = verdict(proto(), Trials(samples=[{"x": np.ones((2, 4), np.float32)}]))
    assert found.ok and found.error == 0
    assert found.checks[2:] == [
        "the original's outputs on 6 random inputs", "the original's outputs on 1 inputs of the data",
    ]  # fmt: skip


def test_another_value_is_told() -> None:
    found = verdict(proto(1.01))
    assert not found.ok and "output 'y' differs by" in found.problem and found.error == pytest.approx(0.01, rel=0.1)
    assert verdict(proto(1.01), tolerance=0.05).ok, "where that much is allowed"


def test_another_interface_is_told() -> None:
    assert verdict(proto(name="z")).problem == "output 'y' is another than before"


def test_a_range_is_where_it_is_equal() -> None:
    assert not verdict(clipped()).ok
    inside = verdict(clipped(), Trials(ranges={"x": (0.0, 1.0)}))
    assert inside.ok and inside.checks[-1].endswith("of the range")
    with pytest.raises(UsageError, match="the data leave the input range: 'x' goes from 2 to 2"):
        verdict(clipped(), Trials(ranges={"x": (0.0, 1.0)}, samples=[{"x": np.full((1, 4), 2, np.float32)}]))


def test_a_model_that_does_not_run_is_not_proven() -> None:
    broken = proto()
    broken.graph.node[0].op_type, broken.graph.node[0].domain = "Mystery", "com.example"
    broken.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    assert not verdict(broken).ok
