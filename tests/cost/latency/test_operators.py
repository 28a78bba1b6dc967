"""Operators cut out of models: of the sizes that they have in the smaller model, and runnable alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import criteria
from onnxprune.cost import AxisLengths
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.cost.latency import profiler
from onnxprune.cost.latency.correction import CorrectionCurve
from onnxprune.cost.latency.operators import Micrograph, operators
from onnxprune.cost.latency.prediction import _fused, predict
from onnxprune.cost.latency.profile import profile
from onnxprune.cost.latency.profiler import measure_operators
from onnxprune.cost.latency.tables import Table, plan
from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from onnxprune.rewriting import removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Setting
from onnxprune.tracing import trace
from tests.graphs.net import Net

MODELS = Path(__file__).parents[3] / "models"
ONE = Setting(threads=1)
NAMES = (
    *("resnet", "resnext", "mobilenet_v2", "shufflenet", "densenet", "dcgan", "conv3d", "tcn", "lstm", "siamese"),
    *("gpt2", "bert", "llama", "llama_23", "swin", "einsum", "fused", "quantized", "half", "encoder_decoder"),
)


def traced(model):
    groups = trace(model)
    scores = criteria.score(groups, "l2", 0, [])
    return groups, AxisLengths(groups, {g.name: units_in_order(g, scores) for g in groups.groups})


def removal(groups, widths, share):
    """(int[groups] counts, the smaller model)."""
    counts = np.array([int(share * widths.units(i)) for i in range(widths.count)], np.int64)
    names = [g.name for g in groups.groups]
    removed = {n: widths.order[n][:c].reshape(-1) for n, c in zip(names, counts, strict=True) if c}
    return counts, rewrite(groups, removed_classes(groups, removed))


def lengths_at(operator, widths, counts):
    left = widths.lengths(counts)
    return tuple(int(left[x.axis]) * x.base // x.full for x in operator.letters)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_the_smaller_model(name):
    model = load(str(MODELS / f"{name}.onnx"))
    groups, widths = traced(model)
    found = operators(widths, groups.static)
    assert found
    counts, small = removal(groups, widths, 0.5)
    static = infer(small, groups.static.sizes)
    checked = 0
    for operator in found:
        at = lengths_at(operator, widths, counts)
        for port in operator.ports:
            if operator.name(port) in static.shapes and operator.name(port) not in groups.tracing.duplicated_per_use:
                checked += 1
                assert operator.shape(port, at) == static.shapes[operator.name(port)], (operator.view.name, port)
    assert checked or name in ("lstm",)


@pytest.mark.parametrize("name", NAMES)
def test_operators_run_alone(name, monkeypatch):
    monkeypatch.setattr(profiler, "FEWEST", 1)
    monkeypatch.setattr(profiler, "SECONDS", 0.0)
    model = load(str(MODELS / f"{name}.onnx"))
    groups, widths = traced(model)
    counts, _ = removal(groups, widths, 0.5)
    found = operators(widths, groups.static)
    points = [(o, at) for o in found for at in (o.base, lengths_at(o, widths, counts))]
    seconds = measure_operators(points, ONE, model.proto)
    failed = {o.view.node.op_type for (o, _), s in zip(points, seconds, strict=True) if np.isnan(s)}
    assert failed <= ({"Attention"} if name == "fused" else set())


def test_groups_of_a_convolution_follow():
    """Channels go from within every group, or groups go whole: either way the attribute fits the sizes."""
    for name in ("resnext", "mobilenet_v2"):
        model = load(str(MODELS / f"{name}.onnx"))
        groups, widths = traced(model)
        counts, small = removal(groups, widths, 0.5)
        wanted = {n.output[0]: [a.i for a in n.attribute if a.name == "group"] for n in small.proto.graph.node}
        for operator in operators(widths, groups.static):
            graph = Micrograph()
            operator.place(lengths_at(operator, widths, counts), graph, "p0")
            (node,) = [n for n in graph.nodes if n.name == "p0_0"]
            assert [a.i for a in node.attribute if a.name == "group"] == wanted[operator.view.node.output[0]]


def test_signatures_tell_operators_apart():
    net = Net()
    x = net.input([1, 8, 6, 6])
    for kernel in (3, 3, 1):
        x = net.add("Conv", x, net.weight(8, 8, kernel, kernel), pads=[kernel // 2] * 4)
    net.output(net.add("Conv", x, net.weight(8, 8, 1, 1)), [1, 8, 6, 6])
    groups, widths = traced(net.model())
    first, second, third, last = [o.signature for o in operators(widths, groups.static)]
    assert first != second  # the input of the first stays
    assert len({str(s) for s in (second, third, last)}) == 3
    again = operators(widths, groups.static)[1]
    assert again.signature == second and len(plan(again)) > 10


def test_what_cannot_be_run_alone_is_nan():
    model = load(str(MODELS / "custom_op.onnx"))
    groups, widths = traced(model)
    found = operators(widths, groups.static)
    unknown = onnx.ModelProto()
    unknown.CopyFrom(model.proto)
    unknown.opset_import[0].version = 99
    assert np.isnan(measure_operators([(found[0], found[0].base)], ONE, unknown)).all()


# --- the whole model --------------------------------------------------------------------------------------


@pytest.fixture
def blocks():
    """Two convolutions, each with a norm and an activation, and one more; with a profile that is made up."""
    net = Net()
    x = net.input([1, 3, 8, 8])
    for i, (a, b) in enumerate(((3, 16), (16, 32)), 1):
        x = net.add("Conv", x, net.weight(b, a, 3, 3), pads=[1] * 4, name=f"conv{i}")
        stats = [net.const(np.full(b, v, np.float32)) for v in (1.5, 0.5, 0.1, 1.2)]
        x = net.add("BatchNormalization", x, *stats, name=f"norm{i}")
        x = net.add("Relu", x, name=f"relu{i}")
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], name="pool")
    net.output(net.add("Conv", x, net.weight(4, 32, 1, 1), name="conv3"), [1, 4, 4, 4])
    return net.model()


NODES = {"relu1": 2e-3, "relu2": 5e-3, "pool": 1e-3, "conv3": 0.5e-3, "": 0.25e-3}


@pytest.fixture
def prediction(blocks, monkeypatch):
    """With tables of made-up operators: time in proportion to the product of all lengths."""

    def products(changing, *_):
        return [Table(o.letters, {n: float(np.prod(n)) * 1e-9 for n in plan(o)}) for o in changing]

    monkeypatch.setattr("onnxprune.cost.latency.prediction.tables", products)
    _, widths = traced(blocks)
    return predict(widths, {}, NODES, ONE)


def test_what_is_fused_belongs_to_the_node_that_it_became(blocks):
    tracing = trace(blocks).tracing
    assert set(_fused(tracing, "relu2", NODES)) == {"relu2", "norm2", "conv2"}
    assert set(_fused(tracing, "pool", NODES)) == {"pool"}


def test_prediction_is_what_the_parts_take(prediction):
    zero = np.zeros(2, np.int64)
    assert prediction.total(zero) == pytest.approx(sum(NODES.values()))
    # Of 16 channels 4 remain, of 32 channels 8.
    found = prediction.total(np.array([12, 24]))
    assert found == pytest.approx(2e-3 / 4 + 5e-3 / 16 + 1e-3 / 4 + 0.5e-3 / 4 + 0.25e-3, rel=1e-6)
    # What no node takes is overhead; nodes that take more than the run were timed on a slower machine.
    for seconds in (1.0, 1e-3):
        assert prediction.anchored(seconds).total(zero) == pytest.approx(seconds)
    assert prediction.anchored(1.0).total(np.array([12, 24])) == pytest.approx(1.0 - prediction.total(zero) + found)
    assert prediction.anchored(1e-3).total(np.array([12, 24])) == pytest.approx(1e-3 * found / sum(NODES.values()))


def test_prediction_is_corrected_node_by_node(prediction):
    zero, seen = np.zeros(2, np.int64), np.array([12, 24])
    whole, narrow = sum(NODES.values()), prediction.total(seen)
    times = {"relu1": 2e-3 / 4, "relu2": 5 * 5e-3 / 16, "pool": 0.4e-3, "conv3": 0.5e-3 / 4}
    times = {name: times.get(name, seconds) for name, seconds in NODES.items()}
    found = prediction.anchored(whole).corrected(seen, times, sum(times.values()))
    assert found.total(zero) == pytest.approx(whole)
    assert found.total(seen) == pytest.approx(sum(times.values())) and found.total(seen) > 1.5 * narrow
    # Another share of the machine while nodes are timed is no news about any of them.
    slowed = {name: 1.7 * seconds for name, seconds in times.items()}
    again = prediction.anchored(whole).corrected(seen, slowed, sum(times.values()))
    for counts in (seen, np.array([4, 8]), np.array([15, 31])):
        assert again.total(counts) == pytest.approx(found.total(counts))
    for group, units in ((0, 16), (1, 32)):
        allowed = np.arange(units)
        for count, value in zip(allowed, found.along(seen, group, allowed), strict=True):
            at = seen.copy()
            at[group] = count
            assert value == pytest.approx(found.total(at))


def test_curves_are_straight_between_what_was_measured():
    curve = CorrectionCurve.of(10.0, [(5.0, 8.0)])
    assert curve(np.array([10.0, 7.5, 5.0, 0.0, 12.0])) == pytest.approx([10, 9, 8, 6, 12])
    # Faster than expected: in proportion below what was seen. Slower than the whole: no slower.
    assert CorrectionCurve.of(10.0, [(5.0, 2.0)])(np.array([2.5, 0.0])) == pytest.approx([1.0, 0.0])
    assert CorrectionCurve.of(10.0, [(5.0, 30.0)])(np.array([5.0, 2.0])) == pytest.approx([10.0, 10.0])
    assert CorrectionCurve.of(10.0, [])(np.array([3.0])) == pytest.approx([3.0])
    # What was measured twice is in the middle, and less work never takes longer.
    assert CorrectionCurve.of(10.0, [(5.0, 4.0), (5.0, 6.0)])(np.array([5.0])) == pytest.approx([5.0])
    assert (np.diff(CorrectionCurve.of(10.0, [(2.0, 7.0), (4.0, 3.0)])(np.linspace(0, 10, 50))) >= 0).all()


def test_along_is_the_total_for_every_allowed_count(prediction):
    rng = np.random.default_rng(0)
    for group, units in ((0, 16), (1, 32)):
        counts = np.array([rng.integers(0, 15), rng.integers(0, 31)])
        allowed = np.arange(units)
        found = prediction.along(counts, group, allowed)
        for count, value in zip(allowed, found, strict=True):
            at = counts.copy()
            at[group] = count
            assert value == pytest.approx(prediction.total(at))


def test_profile_knows_the_tensors_of_the_original(blocks):
    found = profile(blocks, {"x": np.ones((1, 3, 8, 8), np.float32)}, ONE)
    assert {"relu1", "relu2", "conv3"} <= set(found) and all(s > 0 for s in found.values())
    assert found.get("", 0.0) < 0.5 * sum(found.values())  # reordering


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_without_a_name_of_their_own_are_timed(name: str) -> None:
    """Some exporters name no node: the profiler's times must still find their tensors."""
    net = Net()
    x = net.input([1, 16, 24, 24], name="x")
    for index in range(3):
        x = net.add("Relu", net.add("Conv", x, net.weight(32, 16 if not index else 32, 3, 3)))
    net.output(x)
    proto = net.proto()
    for node in proto.graph.node:
        node.name = name
    feeds = {"x": np.zeros((1, 16, 24, 24), np.float32)}
    found = profile(load(proto), feeds, Setting(threads=1))
    assert sum(seconds for tensor, seconds in found.items() if tensor) > 0.8 * sum(found.values())
