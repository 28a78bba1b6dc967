"""Operators cut out of models: of the sizes that they have in the smaller model, and runnable alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cost.latency import profiler
from onnxprune.cost.latency.operators import Micrograph, operators
from onnxprune.cost.latency.profiler import measure_operators
from onnxprune.cost.latency.tables import plan
from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from onnxprune.rewriting import removed_classes
from onnxprune.rewriting.rewrite import rewrite
from tests.cost.latency.traced_models import ONE, traced
from tests.graphs.net import Net

MODELS = Path(__file__).parents[3] / "models"
NAMES = (
    *("resnet", "resnext", "mobilenet_v2", "shufflenet", "densenet", "dcgan", "conv3d", "tcn", "lstm", "siamese"),
    *("gpt2", "bert", "llama", "llama_23", "swin", "einsum", "fused", "quantized", "half", "encoder_decoder"),
)


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
