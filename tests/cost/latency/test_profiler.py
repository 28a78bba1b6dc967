"""Times of single operators and of nodes, as the runtime's profiler tells them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost.latency import profiler
from onnxprune.model import load
from onnxprune.runtime import Setting
from tests.graphs.net import Net


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "SECONDS", 0.05)


def test_every_node_that_runs_has_a_time() -> None:
    net = Net()
    h = net.add("MatMul", net.input([64, 64]), net.weight(64, 64), name="product")
    net.output(net.add("Softmax", h, name="y"))
    found = profiler.profiled(load(net.proto()), {"x": np.ones((64, 64), np.float32)}, Setting(threads=1))
    assert any("product" in name for name in found) and all(0 < seconds < 1 for seconds in found.values())


def test_larger_products_take_longer() -> None:
    times = []
    for size in (32, 512):
        net = Net()
        net.output(net.add("MatMul", net.input([size, size]), net.weight(size, size), name="product"))
        feeds = {"x": np.ones((size, size), np.float32)}
        found = profiler.profiled(load(net.proto()), feeds, Setting(threads=1))
        times.append(sum(found.values()))
    assert times[1] > 5 * times[0], "of 4,096 times as many products"


@pytest.mark.parametrize(
    ("durations", "each", "microseconds"),
    [([10, 10, 10, 10], 1, 10), ([10, 500, 10, 900], 1, 10), ([5, 6, 5, 6, 70, 80, 5, 6], 2, 11)],
)
def test_the_faster_half_counts_and_nodes_of_loops_add_up(durations: list[int], each: int, microseconds: int) -> None:
    """What runs at first does not count, and times are cut to whole microseconds: half of one is missing."""
    warm, runs = [9999] * (each * profiler.WARM), len(durations) // each + profiler.WARM
    wanted = microseconds * 1e-6 + each * profiler.TRUNCATED
    assert profiler._typical([*warm, *durations], runs) == pytest.approx(wanted)


def test_points_are_measured_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sized:
        def elements(self, lengths: tuple[int, ...]) -> int:
            return lengths[0]

    monkeypatch.setattr(profiler, "ELEMENTS", 10)
    points = [(Sized(), (n,)) for n in (4, 4, 4, 30, 1)]
    parts = list(profiler._parts(points, np.arange(5)))  # type: ignore[arg-type]
    assert parts == [[0, 1], [2], [3], [4]] and sorted(i for part in parts for i in part) == list(range(5))
