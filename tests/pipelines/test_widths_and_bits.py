"""Widths and bits within a size or a time: what is tried, what stays, and what is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

from onnxprune.cost.latency import Timer
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, file_size, load, to_proto
from onnxprune.pipelines.quantize import quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.pipelines.widths_and_bits import quantize_within
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.sparsity import Speed
from tests.graphs.net import Net
from tests.graphs.quantized import output

NARROW = onnx.TensorProto.INT4


@cache
def case() -> tuple[Model, RunInputs]:
    """Three layers, of whose hidden units a part depends on the others; and inputs."""
    net, rng = Net(seed=0), np.random.default_rng(0)
    x = net.input(["n", 64])
    for inputs, outputs in ((64, 160), (160, 160), (160, 12)):
        weight = rng.standard_normal((inputs, 48)) @ rng.standard_normal((48, outputs)) / np.sqrt(48 * inputs)
        shift = net.const(rng.standard_normal(outputs).astype(np.float32) * 0.1)
        x = net.add("Gemm", x, net.const(weight.astype(np.float32)), shift)
        x = net.add("Relu", x) if outputs != 12 else x
    net.output(x)
    return net.model(), RunInputs([{"x": rng.standard_normal((160, 64)).astype(np.float32)}], 160)


def narrow_layers(model: Model) -> int:
    numbers = {t.name for t in model.proto.graph.initializer if t.data_type == NARROW and len(t.dims) == 2}
    return sum(n.op_type == "DequantizeLinear" and n.input[0] in numbers for n in model.proto.graph.node)


def test_the_best_of_what_was_tried_is_within_the_size() -> None:
    model, inputs = case()
    limit = 0.15 * file_size(model)
    done = quantize_within(model, QuantizeOptions(size="15%"), inputs)
    assert file_size(done.model) == done.sizes[1] <= limit and done.sizes[0] == file_size(model)
    assert len(done.tried) > 2 and all(tried.bytes <= limit for tried in done.tried)
    assert [t.share for t in done.tried] == sorted(t.share for t in done.tried)
    assert done.judged is not None
    assert done.judged.error == min(tried.outputs.error for tried in done.tried)
    assert narrow_layers(done.model) == len(done.narrow) > 0
    # Fewer bits for more units, or the other way round: the ends of what was tried.
    counts = [tried.narrow for tried in done.tried]
    assert counts[0] == 0 and counts == sorted(counts) and counts[-1] >= 2
    fresh = np.random.default_rng(5).standard_normal((64, 64)).astype(np.float32)
    wanted, found = output(to_proto(model), fresh), output(to_proto(done.model), fresh)
    measured = 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum())
    assert measured == pytest.approx(done.judged.sqnr, abs=1.5)


def test_nothing_is_cut_where_bits_are_enough() -> None:
    model, inputs = case()
    done = quantize_within(model, QuantizeOptions(size="60%"), inputs)
    assert done.share == 1 and not done.narrow and len(done.tried) == 1
    assert done.judged == quantize_model(model, QuantizeOptions(), inputs).judged


def test_work_has_a_budget_too() -> None:
    model, inputs = case()
    done = quantize_within(model, QuantizeOptions(macs="50%"), inputs)
    shapes = [tuple(t.dims) for t in done.model.proto.graph.initializer if len(t.dims) == 2]
    assert sum(a * b for a, b in shapes) <= 0.5 * (64 * 160 + 160 * 160 + 160 * 12)
    assert done.tried[0].narrow == 0


@pytest.mark.parametrize("decibels", [1.0, 90.0])
def test_the_best_must_be_good_enough(decibels: float) -> None:
    model, inputs = case()
    options = QuantizeOptions(size="60%", constraint=QualityConstraint("sqnr", decibels))
    if decibels > 50:
        with pytest.raises(GoalMissed, match="not good enough"):
            quantize_within(model, options, inputs)
    else:
        assert quantize_within(model, options, inputs).judged is not None


def test_the_users_measure_chooses() -> None:
    model, inputs = case()

    def smallest_weight(path: str) -> float:
        stored = load(path).initializers.values()
        return -float(min(np.prod(t.dims) for t in stored if len(t.dims) == 2))

    options = QuantizeOptions(
        size="15%", constraint=QualityConstraint("value", 1e9), evaluation=Evaluation(smallest_weight)
    )
    done = quantize_within(model, options, inputs)
    assert done.values is not None and done.values[1] == max(tried.value or -1e9 for tried in done.tried)


def test_what_is_refused() -> None:
    model, inputs = case()
    with pytest.raises(GoalMissed, match="hold no weights"):
        quantize_within(model, QuantizeOptions(size="100B"), inputs)
    with pytest.raises(UsageError, match="leave out --narrow"):
        quantize_within(model, QuantizeOptions(size="20%", narrow=("*",)), inputs)
    with pytest.raises(UsageError, match="is not an amount"):
        quantize_within(model, QuantizeOptions(size="much"), inputs)


# --- budgets on time, on a machine that is simulated: whole numbers take a part of what floats take


def seconds_of(model: Model, part: float) -> float:
    weights = [t for t in model.proto.graph.initializer if len(t.dims) == 2]
    return sum(float(np.prod(t.dims)) * (1.0 if t.data_type == onnx.TensorProto.FLOAT else part) for t in weights)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> float:
    """The part of the time of floats that whole numbers take."""
    part = float(request.param)

    def ratio(small: Model, original: Model) -> TimeRatio:
        value = seconds_of(small, part) / seconds_of(original, part)
        return TimeRatio(value, value, value)

    def speed(original: Model, changed: Model, place: Place) -> Speed:
        found = ratio(changed, original)
        return Speed(1.0, found.value, found, place)

    monkeypatch.setattr(Timer, "before", 1.0)
    monkeypatch.setattr(Timer, "_profile", None)
    monkeypatch.setattr(Timer, "_compare", lambda self, small: ratio(self._run_as(small), self.model))
    monkeypatch.setattr("onnxprune.pipelines.widths_and_bits.measured_speed", speed)
    return part


@pytest.mark.parametrize("machine", [0.5], indirect=True)
def test_whole_numbers_hold_a_time_that_takes_half_of_the_floats_away(machine: float) -> None:
    """Half of the time: whole numbers in every layer and nothing removed; or floats, and half of them removed."""
    model, inputs = case()
    done = quantize_within(model, QuantizeOptions(latency="52%"), inputs)
    assert done.speed is not None and done.speed.ratio.value == pytest.approx(0.5)
    assert len(done.layers) == 3 and not done.floats and not done.narrow and done.share == 1
    ends = {tried.floats: tried for tried in done.tried}
    assert ends[0].share == 1 and ends[3].share < 0.53 and ends[3].speed is not None
    assert all(tried.speed is not None and tried.speed.ratio.value <= 0.52 for tried in done.tried)
    assert ends[0].outputs.error == min(tried.outputs.error for tried in done.tried)


@pytest.mark.parametrize("machine", [0.5], indirect=True)
def test_widths_and_whole_numbers_together_hold_less_time_than_either(machine: float) -> None:
    model, inputs = case()
    done = quantize_within(model, QuantizeOptions(latency="35%"), inputs)
    assert seconds_of(done.model, machine) <= 0.35 * seconds_of(model, machine)
    assert len(done.layers) == 3 and 0.6 < done.share < 0.75
    assert {tried.floats for tried in done.tried} >= {0, 3}


@pytest.mark.parametrize("machine", [2.0], indirect=True)
def test_where_whole_numbers_are_slower_floats_stay(machine: float) -> None:
    """As widths alone are better then: the model holds the time, and nothing in it is quantised."""
    model, inputs = case()
    done = quantize_within(model, QuantizeOptions(latency="60%"), inputs)
    assert not done.layers and len(done.floats) == 3 and done.share < 0.62
    assert seconds_of(done.model, machine) <= 0.6 * seconds_of(model, machine)
    assert done.judged is not None and done.judged.error == min(tried.outputs.error for tried in done.tried)


@pytest.mark.parametrize("machine", [0.5], indirect=True)
def test_times_that_nothing_holds_are_refused(machine: float) -> None:
    model, inputs = case()
    with pytest.raises(GoalMissed, match="within the budgets"):
        quantize_within(model, QuantizeOptions(latency="0.1%"), inputs)
    with pytest.raises(UsageError, match="needs inputs"):
        quantize_within(model, QuantizeOptions(latency="50%"))
