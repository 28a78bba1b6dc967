"""Products that are slower than the weight."""

from __future__ import annotations

import pytest

import onnxprune
from onnxprune.allocation.ranks import FactorOption, RankChoice
from onnxprune.errors import GoalMissed
from onnxprune.model import load
from onnxprune.pipelines.factor_timing import STEPS, LayerTimes, ProductTimer
from onnxprune.rewriting.factorise import factorisable
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.tracing import trace
from tests.graphs.net import Net
from tests.pipelines.test_low_rank import DIGITS


def test_time_of_products_is_measured():
    """A product of rank 16 is far faster than a wide weight."""
    net = Net()
    net.output(net.add("MatMul", net.input((256, 512)), net.weight(512, 512, name="w")))
    assert onnxprune.compress(net.proto(), ranks={"w": 16}).low_rank.weights[0].rank == 16


@pytest.mark.parametrize("low", [0.9, 1.1])
def test_a_product_that_is_measured_to_be_slower_is_refused(monkeypatch, low):
    """Beyond the noise: a ratio that may be below one decides nothing."""
    net = Net()
    net.output(net.add("MatMul", net.input((1, 16)), net.weight(16, 16, name="w")))
    times = TimeRatio(1.2, low, 1.3)
    monkeypatch.setattr(ProductTimer, "layer", lambda timer, weight, products: LayerTimes(1.0, [times] * len(products)))
    if low < 1:
        assert onnxprune.compress(net.proto(), ranks={"w": 7}).low_rank.weights[0].rank == 7
        return
    with pytest.raises(GoalMissed, match="slower"):
        onnxprune.compress(net.proto(), ranks={"w": 7})


def test_a_few_products_of_every_form_are_timed():
    """Over the whole range, and none that loses more at no less work than another of its form."""
    options = [
        FactorOption(form, (rank,), {"macs": float(rank), "params": float(rank)}, lost)
        for form in ("channel", "spatial")
        for rank, lost in ((r, 1 / r if r % 3 else 0.9) for r in range(1, 60))
    ]
    asked = dict[str, list[int]]()
    timer = ProductTimer(trace(load(DIGITS)), Place())
    timer.layer = lambda weight, products: noted(asked, products)
    (kept,) = timer.timed(["w"], [RankChoice("w", {"macs": 60.0}, options)], allow_slower=False)
    for ranks in asked.values():
        assert len(ranks) <= STEPS and ranks[-1] == 59 and not any(r % 3 == 0 for r in ranks)
    assert {o.ranks[0] for o in kept.options} == {r for ranks in asked.values() for r in ranks if r < 30}
    assert kept.whole["latency"] == 2.0 and all(o.costs["latency"] == o.ranks[0] / 15 for o in kept.options)


def noted(asked, products):
    for product in products:
        asked.setdefault(product.form, []).append(product.ranks[0])
    return LayerTimes(2.0, [TimeRatio(r / 30, r / 30, r / 30) for r in (p.ranks[0] for p in products)])


def test_layers_and_products_of_equal_sizes_are_timed_once():
    net = Net()
    x = net.add("MatMul", net.input((4, 32)), net.weight(32, 32, name="one"))
    net.output(net.add("MatMul", net.add("Relu", x), net.weight(32, 32, name="two")))
    groups = trace(net.model())
    timer, timed = ProductTimer(groups, Place()), []
    compared = timer._compared
    timer._compared = lambda weight, shape, products: (
        timed.extend(p.ranks for p in products) or compared(weight, shape, products)
    )
    one, two = factorisable(groups)
    products = [FactorOption("channel", (rank,), {}, 0.0) for rank in (2, 4, 8)]
    first, second = timer.layer(one, products[:2]), timer.layer(two, products)
    assert timed == [(2,), (4,), (8,)] and list(second.ratios[:2]) == list(first.ratios)
    assert timer.layer(two, []).whole > 0
