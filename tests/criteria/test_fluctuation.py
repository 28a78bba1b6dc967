"""Variances of inputs times squared weights."""

from __future__ import annotations

import numpy as np
import onnx

from tests.criteria.nets import batches, scored, values_of
from tests.graphs.net import Net, array_of


def test_fluctuation(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    b, c = (array_of(net, n).astype(np.float64) for n in "bc")
    wanted = [hidden[:, i].var() * (np.square(b[:, i]).sum() + np.square(c[:, i]).sum()) for i in range(8)]
    np.testing.assert_allclose(scored(net, "fluctuation", "a", 0, runs=batches()), wanted, rtol=1e-5)


def test_a_depthwise_convolution_is_no_reader() -> None:
    """What a depthwise filter makes of a channel goes with it: only what sums over channels counts."""
    net = Net()
    h = net.add("Conv", net.input(["n", 3, 6, 6]), net.weight(8, 3, 1, 1, name="a"))
    h = net.add("Relu", net.add("Conv", h, net.weight(8, 1, 3, 3, name="depth", scale=100.0), group=8), name="h")
    net.output(net.add("Conv", h, net.weight(6, 8, 1, 1, name="b"), name="y"), ["n", 6, 4, 4])
    proto, runs = net.proto(), batches()
    x = values_of(proto, "h", runs).transpose(1, 0, 2, 3).reshape(8, -1)
    wanted = np.abs(array_of(proto, "b")).sum(axis=(0, 2, 3)) * np.sqrt(np.square(x).mean(axis=1))
    np.testing.assert_allclose(scored(proto, "wanda", "a", 0, runs=runs), wanted, rtol=1e-5)
