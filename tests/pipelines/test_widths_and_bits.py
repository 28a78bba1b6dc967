"""Widths and bits within a size: what is tried, what stays, and what is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, file_size, load, to_proto
from onnxprune.pipelines.quantize import quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.pipelines.widths_and_bits import quantize_within
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
