"""Moments of what contractions read."""

from __future__ import annotations

import numpy as np

from onnxprune import api
from onnxprune.layers.effective import Weights
from onnxprune.layers.statistics import ActivationMoments, Activations
from tests.graphs.net import Net


def test_moments_are_those_of_all_values() -> None:
    rng = np.random.default_rng(0)
    parts = [np.maximum(rng.standard_normal((n, 4, 5)), 0) for n in (2, 3)]
    moments = ActivationMoments((1, 4, 1))
    assert all(moments.add(part.astype(np.float32)) for part in parts)
    whole = np.concatenate(parts)
    assert np.allclose(moments.mean_absolute.reshape(-1), np.abs(whole).mean(axis=(0, 2)), rtol=1e-5)
    assert np.allclose(moments.zeros.reshape(-1), (whole == 0).mean(axis=(0, 2)))
    assert np.allclose(moments.variance.reshape(-1), whole.var(axis=(0, 2)), rtol=1e-4)


def test_another_size_is_not_added() -> None:
    assert not ActivationMoments((1, 4, 1)).add(np.ones((2, 5, 3), np.float32))


def test_a_tensor_is_measured_once_however_many_read_it() -> None:
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input(["n", 4]), net.weight(4, 6, name="w")), name="h")
    for i in range(2):
        net.output(net.add("MatMul", h, net.weight(6, 3), name=f"y{i}"), ["n", 3])
    groups = api.trace(net.proto())
    runs = [{"x": np.random.default_rng(i).standard_normal((5, 4)).astype(np.float32)} for i in range(2)]
    found = Activations(groups, Weights(groups), runs)
    assert len(list(found.measured())) == 2
    ((reader, moments),) = found.tensors()
    assert reader.tensor == "h" and moments.count == 10


def test_without_runs_nothing_is_known() -> None:
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6))
    net.output(net.add("MatMul", h, net.weight(6, 3)))
    groups = api.trace(net.proto())
    assert all(m.count == 0 for _, m in Activations(groups, Weights(groups), ()).measured())
