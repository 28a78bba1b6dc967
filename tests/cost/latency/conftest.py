"""Fixtures of these tests."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost.latency.prediction import predict
from onnxprune.cost.latency.tables import Table, plan
from tests.cost.latency.traced_models import NODES, ONE, traced
from tests.graphs.net import Net


@pytest.fixture
def blocks():
    """Two convolutions, each with a norm and an activation, and one more; with a profile that is made up."""
    net = Net()
    x = net.input([1, 3, 8, 8])
    for i, (a, b) in enumerate(((3, 16), (16, 32)), 1):
        x = net.add("Conv", x, net.weight(b, a, 3, 3), pads=[1] * 4, name=f"conv{i}")
        stats = [net.const(np.full(b, v, np.float32)) for v in (1.5, 0.5, 0.1, 1.2)]
        x = net.add("BatchNormalization", x, *stats, name=f"norm{i}")
        x = net.add("Relu", x, name=f"relu{i}")
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], name="pool")
    net.output(net.add("Conv", x, net.weight(4, 32, 1, 1), name="conv3"), [1, 4, 4, 4])
    return net.model()


@pytest.fixture
def prediction(blocks, monkeypatch):
    """With tables of made-up operators: time in proportion to the product of all lengths."""

    def products(changing, *_):
        return [Table(o.letters, {n: float(np.prod(n)) * 1e-9 for n in plan(o)}) for o in changing]

    monkeypatch.setattr("onnxprune.cost.latency.prediction.tables", products)
    _, widths = traced(blocks)
    return predict(widths, {}, NODES, ONE)
