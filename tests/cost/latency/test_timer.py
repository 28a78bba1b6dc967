"""Times of a model before and after, and what may be said of them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost.latency import timer
from onnxprune.cost.latency.timer import Timed, Timer
from onnxprune.model import Model, load
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from tests.graphs.net import Net


def product(size: int) -> Model:
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 256]), net.weight(256, size)), ["n", size])
    return load(net.proto())


@pytest.mark.parametrize(
    ("ratio", "slower"), [((0.5, 0.4, 0.6), False), ((1.1, 0.9, 1.3), False), ((1.2, 1.1, 1.3), True)]
)
def test_slower_is_beyond_the_noise(ratio: tuple[float, float, float], slower: bool) -> None:
    timed = Timed(2.0, TimeRatio(*ratio), None, Place())
    assert timed.is_slower is slower and timed.after == pytest.approx(2.0 * ratio[0])


def test_a_model_is_timed_once_and_a_smaller_one_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "SECONDS", 0.1)
    told: list[str] = []
    one = Timer(product(4096), Place(Setting(threads=1), sizes={"n": 64}), told.append)
    assert one.feeds["x"].shape == (64, 256) and one.sizes == {"n": 64}
    before = one.before
    assert 0 < before < 1 and one.before == before and told.count("timing the model") == 1
    assert one.seconds(product(64)) < 0.5 * before
    assert isinstance(one.feeds["x"], np.ndarray)


def test_what_is_run_in_place_of_a_model_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the original as it is; made once while it is the last that was asked for."""
    monkeypatch.setattr(timer, "SECONDS", 0.1)
    made: list[Model] = []

    def deployed(model: Model) -> Model:
        made.append(model)
        return product(16)

    original, small = product(4096), product(2048)
    one = Timer(original, Place(Setting(threads=1), sizes={"n": 64}, deployed=deployed))
    assert one.seconds(original) < 0.5 * one.before and one.seconds(small) < 0.5 * one.before
    assert made == [original, small]
