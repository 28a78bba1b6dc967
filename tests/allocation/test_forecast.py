"""What is expected of ratios, held against models that are pruned by them."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.allocation.forecast import forecast
from onnxprune.cost import counts
from onnxprune.errors import GoalMissed
from onnxprune.model import file_size, load
from onnxprune.report.data import removed_units
from onnxprune.runtime.bench import Place
from tests.graphs.net import Net

MODELS = Path(onnxprune.__file__).parents[1] / "models"
NAMES = ("resnet", "mobilenet_v3", "densenet", "vit", "bert", "llama", "lstm", "unet", "yolo", "gpt2")


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_is_what_was_expected(name: str) -> None:
    model = load(MODELS / f"{name}.onnx")
    ratios = (0.3, 0.6)
    whole, *rows = forecast(api.trace(model), ratios, None, str)
    before = counts.of(model, {})
    assert (whole.params, whole.macs, whole.size) == (before.params, before.macs, file_size(model))
    assert whole.ratio == 0 and whole.seconds is None
    for ratio, row in zip(ratios, rows, strict=True):
        outcome = api.run(model, Options(ratio=ratio, criterion="l2"), verify=False)
        after = counts.of(outcome.model, {})
        assert row.params == pytest.approx(after.params, rel=0.03)
        assert row.macs == pytest.approx(after.macs, rel=0.03)
        assert row.size == pytest.approx(file_size(outcome.model), rel=0.03)
        assert row.units == whole.units - sum(map(removed_units, outcome.plan.steps))


def test_times_are_those_of_models_of_that_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.cost.latency.timer.SECONDS", 0.05)
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input([64, 256]), net.weight(256, 1024)))
    net.output(net.add("MatMul", x, net.weight(1024, 256)), [64, 256])
    whole, row = forecast(api.trace(net.proto()), (0.9,), Place(), str)
    assert whole.seconds is not None and row.seconds is not None and 0 < row.seconds < whole.seconds


def test_nothing_to_prune_is_said() -> None:
    net = Net()
    net.output(net.add("Relu", net.input(["n", 4])), ["n", 4])
    with pytest.raises(GoalMissed, match="nothing can be pruned"):
        forecast(api.trace(net.proto()), (0.5,), None, str)
