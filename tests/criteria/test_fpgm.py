"""Distances between filters."""

from __future__ import annotations

import numpy as np
import onnx

from tests.criteria.nets import scored
from tests.graphs.net import Net, array_of


def test_fpgm(net: onnx.ModelProto) -> None:
    """Distances between the filters that make the channels; their bias and their readers play no part."""
    a = array_of(net, "a").astype(np.float64).reshape(8, -1)
    wanted = [sum(np.linalg.norm(a[i] - a[j]) for j in range(8)) for i in range(8)]
    np.testing.assert_allclose(scored(net, "fpgm", "a", 0), wanted, rtol=1e-4)


def test_fpgm_of_equal_filters_is_small() -> None:
    net = Net()
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    weight[:, 1] = weight[:, 4] = weight[:, 0]
    x = net.add("Relu", net.add("MatMul", net.input([2, 4]), net.const(weight, "w")))
    net.read(x, 1)
    assert set(np.argsort(scored(net.proto(), "fpgm", "w", 1))[:3]) == {0, 1, 4}
