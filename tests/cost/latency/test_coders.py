"""Layers of whole numbers are timed as what the runtime makes of them: one kernel with the nodes around it."""

from __future__ import annotations

from itertools import chain

import numpy as np
import onnx
import pytest

from onnxprune.cost.latency.coders import coders_of, decoders_of
from onnxprune.cost.latency.operators import Micrograph, operators
from onnxprune.cost.latency.profile import profile
from onnxprune.cost.latency.profiler import profiled
from onnxprune.cost.latency.tables import plan
from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from onnxprune.rewriting import removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Deployed
from tests.cost.latency.traced_models import ONE, traced
from tests.graphs.net import Net


def quantised(net: Net, x: str, zero_point: int = 128) -> str:
    """`x` behind a QuantizeLinear and a DequantizeLinear."""
    scale, zero = net.const(np.float32(0.05)), net.const(np.array(zero_point, np.uint8))
    return net.add("DequantizeLinear", net.add("QuantizeLinear", x, scale, zero), scale, zero)


def weight(net: Net, *shape: int) -> str:
    """A stored int8 weight behind a DequantizeLinear with a scale for every output."""
    whole = net.const(np.random.default_rng(0).integers(-127, 127, shape, np.int8))
    scale = net.const(np.full(shape[0], 0.01, np.float32))
    return net.add("DequantizeLinear", whole, scale, net.const(np.zeros(shape[0], np.int8)), axis=0)


@pytest.fixture
def net() -> onnx.ModelProto:
    """Three convolutions of whole numbers, an activation behind one of them, and one of floats."""
    net = Net(opset=13)
    x = quantised(net, net.input([1, 3, 12, 12], name="x"))
    for width, (made, read) in enumerate(((32, 3), (32, 32), (24, 32))):
        x = net.add("Conv", x, weight(net, made, read, 3, 3), pads=[1] * 4, name=f"conv{width}")
        x = quantised(net, net.add("Relu", x), 0) if width == 1 else quantised(net, x)
    net.output(net.add("Conv", x, net.weight(4, 24, 1, 1), name="last"), [1, 4, 12, 12])
    return net.proto()


def test_the_nodes_around_a_contraction(net: onnx.ModelProto) -> None:
    groups, _ = traced(load(net))
    node = {n.output[0]: n for n in net.graph.node}
    names = [[n.op_type for n in of(groups.tracing, node["conv1"])] for of in (decoders_of, coders_of)]
    assert names == [["DequantizeLinear", "DequantizeLinear"], ["Relu", "QuantizeLinear"]]
    assert coders_of(groups.tracing, node["last"]) == []
    assert len(decoders_of(groups.tracing, node["last"])) == 1


def test_a_layer_alone_runs_in_the_kernel_that_it_has_in_the_model(net: onnx.ModelProto, tmp_path) -> None:
    """At every width, and nothing but the nodes that became that kernel counts as its time."""
    model = load(net)
    groups, widths = traced(model)
    found = operators(widths, groups.static)
    assert [len(o.decoders) for o in found] == [2, 2, 2, 1] and [len(o.coders) for o in found] == [1, 2, 1, 0]
    graph = Micrograph()
    points = [(o, lengths) for o in found for lengths in (o.base, tuple(n // 2 for n in o.base))]
    for number, (operator, lengths) in enumerate(points):
        operator.place(lengths, graph, f"p{number}")
    path = tmp_path / "optimised.onnx"
    times = profiled(load(graph.proto(net), check=False), graph.feeds(), ONE, optimised_to=str(path))
    kinds = {n.name.partition("_")[0]: n.op_type for n in onnx.load(path).graph.node if n.name.startswith("p")}
    assert [kinds[f"p{i}"] for i in range(8)] == ["QLinearConv"] * 6 + ["Conv"] * 2
    assert all(any(name.startswith(f"p{i}_") for name in times) for i in range(8))


def test_tables_are_for_layers_of_whole_numbers_apart(net: onnx.ModelProto) -> None:
    """The same convolution of floats, and with another rounding of the output, has another table."""
    groups, widths = traced(load(net))
    signatures = [str(o.signature) for o in operators(widths, groups.static)]
    assert len(set(signatures)) == 4 and [s.count("decoders") for s in signatures] == [1, 1, 1, 1]
    floats = Net(opset=13)
    x = floats.add("Conv", floats.input([1, 3, 12, 12]), floats.weight(32, 3, 3, 3), pads=[1] * 4)
    floats.output(floats.add("Conv", x, floats.weight(4, 32, 1, 1)), [1, 4, 12, 12])
    alone, wide = traced(floats.model())
    assert all("decoders" not in o.signature for o in operators(wide, alone.static))


def test_sizes_around_a_layer_follow(net: onnx.ModelProto) -> None:
    """Scales, zero points and whole numbers are as long as in the model that is written."""
    groups, widths = traced(load(net))
    counts = np.array([8 for _ in groups.groups], np.int64)
    names = [g.name for g in groups.groups]
    small = rewrite(groups, removed_classes(groups, {n: widths.order[n][:8].reshape(-1) for n in names}))
    shapes, found = infer(small, groups.static.sizes).shapes, operators(widths, groups.static)
    left = widths.lengths(counts)
    for operator in found:
        at = [int(left[x.axis]) * x.base // x.full for x in operator.letters]
        for one in chain(operator.decoders, operator.coders):
            for port in one.ports:
                assert one.shape(port, at) == shapes[one.name(port)], (operator.view.name, one.name(port))


def test_time_of_a_model_of_whole_numbers_is_that_of_its_layers(net: onnx.ModelProto) -> None:
    """Kernels with channels last have names of their own; they still belong to the layers that they were."""
    model = load(net)
    found = profile(model, {"x": np.ones((1, 3, 12, 12), np.float32)}, ONE)
    layers = [n.output[0] for n in net.graph.node if n.op_type == "Conv"]
    assert sum(layer in found for layer in layers) >= 3
    assert found.get("", 0.0) < 0.5 * sum(found.values())


def test_every_width_of_the_plan_runs(net: onnx.ModelProto) -> None:
    groups, widths = traced(load(net))
    operator, graph = operators(widths, groups.static)[1], Micrograph()
    points = plan(operator)
    for number, lengths in enumerate(points):
        operator.place(lengths, graph, f"p{number}")
    with Deployed(load(graph.proto(net), check=False), ONE) as session:
        assert len(session.run(graph.feeds())) == len(points)
