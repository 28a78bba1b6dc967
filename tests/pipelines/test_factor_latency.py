"""Products within a budget on time, on a machine that is simulated, and on this one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import onnxprune
from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.cost import counts
from onnxprune.cost.latency import Timer
from onnxprune.errors import GoalMissed
from onnxprune.model import load
from onnxprune.pipelines.factor_timing import LayerTimes, ProductTimer
from onnxprune.pipelines.low_rank import factorised
from onnxprune.runtime.paired_timing import TimeRatio
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.graphs.net import Net
from tests.pipelines.test_low_rank import DATA, DIGITS


@dataclass
class Machine:
    """A multiply-accumulate of a layer alone takes a nanosecond, one of a whole model another time."""

    whole: float = 1.0
    overhead: float = 0.0
    # Weights of whose products nobody can tell whether they are faster.
    unsure: tuple[str, ...] = ()

    def layer(self, timer, weight, products):
        macs = {layer.weight: layer.macs for layer in counts.of(timer.groups.model).layers}[weight.name]
        ratios = [product.costs["macs"] / macs for product in products]
        high = 1e6 if weight.name in self.unsure else 1.0
        return LayerTimes(macs * 1e-9, [TimeRatio(r, r / high, r * high) for r in ratios])

    def seconds(self, model):
        return self.overhead + self.whole * counts.of(model).macs * 1e-9

    def compared(self, timer, model):
        ratio = self.seconds(model) / self.seconds(timer.model)
        return TimeRatio(ratio, ratio, ratio)


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(ProductTimer, "layer", lambda timer, weight, products: made.layer(timer, weight, products))
    monkeypatch.setattr(Timer, "before", property(lambda timer: made.seconds(timer.model)))
    monkeypatch.setattr(Timer, "sizes", {})
    monkeypatch.setattr(Timer, "compared", lambda timer, model: made.compared(timer, model))
    return made


@pytest.mark.parametrize(("whole", "overhead"), [(1.0, 0.0), (0.6, 0.0), (1.7, 0.0), (1.0, 4e-5)])
def test_what_layers_take_alone_is_corrected_by_what_the_model_takes(machine, whole, overhead):
    machine.whole, machine.overhead = whole, overhead
    done = factorised(load(DIGITS), LowRankOptions(latency="70%", round_to=1))
    (goal,) = done.goals
    assert goal.met and goal.reached >= 0.9 * goal.most
    assert done.speed.after == pytest.approx(machine.seconds(done.model)) and done.verdict.ok


def test_no_product_is_taken_that_is_not_measured_to_be_faster(machine):
    whole = 1e-9 * counts.of(load(DIGITS)).macs
    machine.unsure = ("residual.conv.weight",)
    options = {"latency": whole / 2, "round_to": 1, "keep": ["fc*"]}
    done = factorised(load(DIGITS), LowRankOptions(**options))
    assert done.weights and "residual.conv.weight" not in {w.name for w in done.weights}
    assert done.left["residual.conv.weight"] == "its products are slower than the one"
    anyway = factorised(load(DIGITS), LowRankOptions(**options, allow_slower=True))
    assert "residual.conv.weight" in {w.name for w in anyway.weights}


def test_a_model_that_is_no_faster_is_not_handed_out(machine):
    machine.whole = 0.0
    machine.overhead = 1e-3
    with pytest.raises(GoalMissed, match="faster"):
        factorised(load(DIGITS), LowRankOptions(latency="70%"))


def test_another_budget_holds_too(machine):
    done = factorised(load(DIGITS), LowRankOptions(latency="90%", params="40%", round_to=1))
    assert all(goal.met for goal in done.goals) and {g.kind for g in done.goals} == {"latency", "params"}


def test_the_command_says_what_was_reached(machine, run, tmp_path):  # noqa: F811 - the fixture
    args = ["compress", DIGITS, "-o", tmp_path / "fast.onnx", "--data", DATA, "--round-to", "1"]
    done = run(*args, "--latency", "70%")
    assert done.code == 0 and "latency:" in done.out and "speed" in done.out
    missed = run(*args, "--latency", "0.1%", "--force", "--accept-damage")
    assert missed.code == 1 and "latency" in missed.err


def test_time_is_measured_here():
    net = Net()
    net.output(net.add("MatMul", net.input((256, 512)), net.weight(512, 512, name="w")))
    found = onnxprune.compress(net.proto(), latency="80%").low_rank
    assert found.weights and found.speed.ratio.value < 1 and found.goals[0].kind == "latency"
    assert np.isfinite(found.speed.before)
