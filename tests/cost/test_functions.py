"""Costs as functions of widths: exactly those of the model that is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune import api
from onnxprune.cost import AxisLengths, functions
from onnxprune.cost import counts as cost
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.criteria import score
from onnxprune.model import Model, file_size, load, save
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array
from tests.graphs import random_graphs
from tests.graphs.net import Net

MODELS = sorted(Path(__file__).parents[2].joinpath("models").glob("*.onnx"))


def widths_of(groups: Groups) -> AxisLengths:
    scores = score(groups, "random", 1)
    return AxisLengths(groups, {g.name: units_in_order(g, scores) for g in groups.groups})


def cut_of(widths: AxisLengths, counts: Array) -> Removal:
    removed = {
        g.name: widths.order[g.name][:n].reshape(-1) for g, n in zip(widths.groups.groups, counts, strict=True) if n
    }
    return Removal(widths.groups, removed_classes(widths.groups, removed))


def drawn(widths: AxisLengths, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.array([rng.integers(0, max(widths.units(i), 1)) for i in range(widths.count)], np.int64)


def nothing(widths: AxisLengths) -> Array:
    return np.zeros(widths.count, np.int64)


@pytest.fixture(params=MODELS, ids=lambda p: p.stem)
def model(request: pytest.FixtureRequest) -> Model:
    return load(request.param)


def test_the_whole_model_costs_what_it_costs(model: Model) -> None:
    widths = widths_of(trace(model))
    whole = cost.of_trace(widths.groups.tracing, model)
    assert functions.macs(widths).total(nothing(widths)) == pytest.approx(whole.macs, rel=1e-9)
    assert functions.params(widths).total(nothing(widths)) == whole.params
    assert functions.size(widths).total(nothing(widths)) == file_size(widths.groups.model)


def test_macs_and_memory_are_those_of_the_model_that_is_written(model: Model) -> None:
    widths = widths_of(trace(model))
    for seed in range(3):
        counts = drawn(widths, seed)
        small = rewrite(widths.groups, cut_of(widths, counts).removed_classes)
        again = trace(small, sizes=widths.groups.static.sizes)
        here, there = functions.memory(widths).total(counts), AxisLengths(again, {})
        assert functions.macs(widths).total(counts) == pytest.approx(functions.macs(there).total(nothing(there)))
        assert here == functions.memory(there).total(nothing(there))


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(random_graphs.mixed(), st.integers(0, 1000))
def test_params_and_macs_of_random_graphs(proto: onnx.ModelProto, seed: int) -> None:
    widths = widths_of(trace(load(proto)))
    counts = drawn(widths, seed)
    removal = cut_of(widths, counts)
    small = rewrite(widths.groups, removal.removed_classes)
    left = cost.of_trace(widths.groups.tracing, small, removal.size)
    assert functions.macs(widths).total(counts) == pytest.approx(left.macs, abs=len(left.layers))
    tracing = widths.groups.tracing
    folded = tracing.folded.producers.keys() & small.initializers.keys()
    if not (tracing.duplicated_per_use or folded):
        # What a weight that the graph computes takes once it is cut, and its value is stored in place of all that it
        # was made of, is not foreseen, nor are constants that each user gets a copy of.
        # Neither are scalars that fall away, as the one that fills an initial state of zeros does, or that come, as
        # the one that makes a mean of a sum over fewer positions does.
        before, after = load(proto).initializers, small.initializers
        fallen, come = scalars(before, after), scalars(after, before)
        assert functions.params(widths).total(counts) == left.params + fallen - come


def scalars(these: Mapping[str, onnx.TensorProto], others: Mapping[str, onnx.TensorProto]) -> int:
    """How many float initializers of a single number are among these and not among others."""
    only = (tensor for name, tensor in these.items() if name not in others)
    return sum(not tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT for tensor in only)


def test_along_is_total_with_one_count_changed(model: Model) -> None:
    widths = widths_of(trace(model))
    counts = drawn(widths, 5)
    made = [functions.macs(widths), functions.params(widths), functions.memory(widths)]
    made.append(functions.units(widths, range(0, widths.count, 2)))
    for group in range(widths.count):
        allowed = np.arange(0, widths.units(group), 3)
        for measure in made:
            found = measure.along(counts, group, allowed)
            for count, value in zip(allowed, found, strict=True):
                other = counts.copy()
                other[group] = count
                assert value == pytest.approx(measure.total(other), rel=1e-12)
    assert (counts == drawn(widths, 5)).all()


def test_units_that_cut_different_numbers_of_positions() -> None:
    """The first four channels come twice in the concatenation: removing them saves more."""
    net = Net()
    x = net.make((2, 8, 5, 5), 1)
    doubled = net.add("Concat", x, net.add("Slice", x, net.ints(0), net.ints(4), net.ints(1)), axis=1)
    net.read(doubled, 1)
    widths = widths_of(trace(load(net.proto())))
    for seed in range(6):
        counts = drawn(widths, seed)
        removal = cut_of(widths, counts)
        left = cost.of_trace(widths.groups.tracing, rewrite(widths.groups, removal.removed_classes), removal.size)
        assert functions.macs(widths).total(counts) == left.macs
        assert functions.params(widths).total(counts) == left.params


def test_peak_memory_of_a_chain() -> None:
    """x is needed until the addition: 2 x 8 and 4 x 8 floats lie next to it."""
    net = Net()
    x = net.input([1, 8])
    wide = net.add("MatMul", x, net.weight(8, 16, name="up"))
    narrow = net.add("MatMul", net.add("Relu", wide), net.weight(16, 8, name="down"))
    net.output(net.add("Add", x, narrow))
    widths = widths_of(trace(load(net.proto())))
    memory = functions.memory(widths)
    assert memory.total(np.array([0])) == 4 * (8 + 16 + 16)
    assert memory.total(np.array([12])) == 4 * (8 + 8 + 8)


def test_a_reshaped_tensor_takes_no_memory_of_its_own() -> None:
    net = Net()
    x = net.input([1, 8, 2])
    flat = net.add("Reshape", x, net.const(np.array([1, 16], np.int64)))
    net.output(net.add("MatMul", flat, net.weight(16, 3)))
    widths = widths_of(trace(load(net.proto())))
    assert functions.memory(widths).total(nothing(widths)) == 4 * (16 + 3)


@pytest.mark.parametrize("external", [False, True])
def test_the_size_of_a_file(tmp_path: Path, external: bool) -> None:
    model = load(MODELS[0])
    path = tmp_path / "model.onnx"
    save(model, path, external=external)
    written = sum(p.stat().st_size for p in tmp_path.iterdir())
    found = file_size(load(path))
    assert found == written if not external else written <= found <= written + 4096 * len(model.initializers)


def test_costs_take_part_in_no_trace() -> None:
    """Asking for widths changes nothing in the trace that a rewrite stands on."""
    model = load(MODELS[0])
    one, two = trace(model), trace(model)
    functions.memory(widths_of(one))
    counts = drawn(widths_of(two), 1)
    small = [rewrite(g, cut_of(widths_of(g), counts).removed_classes).proto.SerializeToString() for g in (one, two)]
    assert small[0] == small[1]
    assert api.trace(model).classes.count == one.classes.count


def test_masks_of_weights_are_no_parameters() -> None:
    net = Net(17)
    x = net.input([2, 4], "x")
    y = net.add("MatMul", x, net.weight(4, 6, name="w"))
    chosen = net.add("Where", net.const(np.tile([True, False, True], (6, 1))), net.weight(6, 3), net.weight(6, 3))
    net.output(net.add("MatMul", y, chosen), [2, 3])
    widths = widths_of(trace(load(net.proto())))
    counts = np.array([2], np.int64)
    removal = cut_of(widths, counts)
    left = cost.of_trace(widths.groups.tracing, rewrite(widths.groups, removal.removed_classes), removal.size)
    assert functions.params(widths).total(counts) == left.params == 4 * 4 + 2 * 4 * 3
