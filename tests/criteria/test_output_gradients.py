"""Gradients of randomly signed outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api, criteria
from onnxprune.errors import ModelError
from tests.graphs.net import Net


def test_a_model_without_a_gradient_is_told() -> None:
    net = Net()
    x = net.input(["n", 8])
    h = net.add("MatMul", x, net.weight(8, 6, name="a"))
    y = net.add("ArgMax", net.add("MatMul", h, net.weight(6, 4, name="b")), axis=1)
    net.output(y, ["n", 1], onnx.TensorProto.INT64)
    runs = [{"x": np.ones((2, 8), np.float32)}]
    with pytest.raises(ModelError, match="needs gradients"):
        criteria.score(api.trace(net.proto()), "taylor", runs=runs)


def test_of_one_layer_and_one_sample_the_squares_are_those_of_the_inputs() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 8]), net.weight(8, 6, name="a")))
    samples = np.random.default_rng(0).standard_normal((5, 1, 8)).astype(np.float32)
    runs = [{"x": sample} for sample in samples]
    found = criteria.mean_square_gradients(api.trace(net.proto()), runs, np.random.default_rng(0), lambda text: None)
    assert [*found] == ["a"]
    np.testing.assert_allclose(found["a"], np.repeat(np.square(samples).mean(axis=0).T, 6, axis=1), rtol=1e-5)
