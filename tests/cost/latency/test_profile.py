"""Times of nodes, as a profile of the runtime tells them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost.latency.prediction import _fused
from onnxprune.cost.latency.profile import profile
from onnxprune.model import load
from onnxprune.runtime import Setting
from onnxprune.tracing import trace
from tests.cost.latency.traced_models import NODES, ONE
from tests.graphs.net import Net


def test_what_is_fused_belongs_to_the_node_that_it_became(blocks):
    tracing = trace(blocks).tracing
    assert set(_fused(tracing, "relu2", NODES)) == {"relu2", "norm2", "conv2"}
    assert set(_fused(tracing, "pool", NODES)) == {"pool"}


def test_profile_knows_the_tensors_of_the_original(blocks):
    found = profile(blocks, {"x": np.ones((1, 3, 8, 8), np.float32)}, ONE)
    assert {"relu1", "relu2", "conv3"} <= set(found) and all(s > 0 for s in found.values())
    assert found.get("", 0.0) < 0.5 * sum(found.values())  # reordering


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_without_a_name_of_their_own_are_timed(name: str) -> None:
    """Some exporters name no node: the profiler's times must still find their tensors."""
    net = Net()
    x = net.input([1, 16, 24, 24], name="x")
    for index in range(3):
        x = net.add("Relu", net.add("Conv", x, net.weight(32, 16 if not index else 32, 3, 3)))
    net.output(x)
    proto = net.proto()
    for node in proto.graph.node:
        node.name = name
    feeds = {"x": np.zeros((1, 16, 24, 24), np.float32)}
    found = profile(load(proto), feeds, Setting(threads=1))
    assert sum(seconds for tensor, seconds in found.items() if tensor) > 0.8 * sum(found.values())
