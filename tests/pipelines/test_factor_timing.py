"""Products that are slower than the weight."""

from __future__ import annotations

import pytest

import onnxprune
from onnxprune.errors import GoalMissed
from tests.graphs.net import Net


def test_time_of_products_is_measured():
    """A product of rank 1 is far faster than a wide weight, and one of nearly full rank is slower."""
    net = Net()
    net.output(net.add("MatMul", net.input((256, 512)), net.weight(512, 512, name="w")))
    assert onnxprune.compress(net.proto(), ranks={"w": 16}).low_rank.weights[0].rank == 16
    with pytest.raises(GoalMissed, match="slower"):
        tiny = Net()
        tiny.output(tiny.add("MatMul", tiny.input((1, 16)), tiny.weight(16, 16, name="w")))
        onnxprune.compress(tiny.proto(), ranks={"w": 7})
