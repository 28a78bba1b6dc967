"""The memory that a run takes."""

from __future__ import annotations

from onnxprune.runtime.bench import bench
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.graphs.net import Net
from tests.runtime.clocks import DIGITS, ONE


def test_memory_grows_with_the_model():
    net = Net()
    net.output(net.add("MatMul", net.input([1, 2000]), net.weight(2000, 4000)), [1, 4000])
    small, large = bench([DIGITS, net.proto()], place=ONE, seconds=0.0, runs=1)
    if small.memory is not None:
        assert large.memory - small.memory > 0.8 * 32e6
