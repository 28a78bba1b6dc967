"""Which layers compute in whole numbers: what each saves, and what is tried."""

from __future__ import annotations

import numpy as np

from onnxprune.model import Model, load
from onnxprune.pipelines.layer_forms import layers_in_float, saved_seconds
from onnxprune.runtime import Setting, quantizer
from onnxprune.runtime.bench import Place
from onnxprune.tracing import trace
from tests.graphs.net import Net

SAVED = {"a": 5.0, "b": -1.0, "c": 4.0, "d": 2.0}
LOST = {"a": 1.0, "b": 0.0, "c": 8.0, "d": 0.1, "e": 0.5}


def test_ends_and_what_lies_between_them() -> None:
    """d loses least for a second, then a, then c; b and e are no faster."""
    assert layers_in_float(SAVED, LOST) == [(), ("b", "e"), ("b", "c", "e"), ("a", "b", "c", "d", "e")]


def test_every_choice_is_tried_once() -> None:
    assert layers_in_float({"a": 1.0}, {"a": 1.0}) == [(), ("a",)]
    assert layers_in_float({"a": -1.0, "b": -1.0}, {"a": 1.0, "b": 1.0}) == [(), ("a", "b")]


def test_seconds_are_those_of_kernels() -> None:
    """Of what is run in place of the model, by the names of its nodes;."""
    net = Net(opset=13)
    x = net.input([1, 16, 24, 24], name="x")
    for width in range(3):
        x = net.add("Relu", net.add("Conv", x, net.weight(48, 48 if width else 16, 3, 3), pads=[1] * 4))
    net.output(net.add("Conv", x, net.weight(4, 48, 1, 1)))
    proto = net.proto()
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}{number}"
    runs = [{"x": np.random.default_rng(0).standard_normal((1, 16, 24, 24)).astype(np.float32)}]

    def deployed(model: Model) -> Model:
        options = {"per_channel": True, "weights": "uint8", "activations": "uint8"}
        return quantizer.quantized_static(model, runs, ["Conv4"], operators=False, **options)

    told: list[str] = []
    saved = saved_seconds(trace(load(proto)), Place(Setting(threads=1), deployed=deployed), told.append)
    assert set(saved) == {"Conv0", "Conv2", "Conv4", "Conv6"}
    assert any("timing" in stage for stage in told)
    assert all(np.isfinite(seconds) for seconds in saved.values())
