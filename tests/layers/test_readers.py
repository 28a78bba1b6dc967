"""Where contractions read a unit, and which axes of weights make units."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers.effective import Weights
from onnxprune.layers.readers import making_axes, readers
from onnxprune.tracing import Groups
from tests.graphs.net import Net


def convolutions() -> Groups:
    net = Net()
    h = net.add("Relu", net.add("Conv", net.input([1, 3, 6, 6]), net.weight(8, 3, 3, 3, name="a")), name="h")
    h = net.add("Conv", h, net.weight(8, 1, 3, 3, name="depthwise"), group=8, name="d")
    net.output(net.add("Conv", h, net.weight(5, 8, 1, 1, name="b"), name="y"))
    return api.trace(net.proto())


def test_an_axis_that_is_summed_over_is_read() -> None:
    found = readers(Weights(convolutions()))
    assert [(r.tensor, r.axis, r.made) for r in found] == [("d", 1, "y")], "a depthwise weight goes with the unit"
    (reader,) = found
    assert reader.part is not None and reader.part.key == "b" and reader.weight_field is not None
    assert reader.weight_field.shape == (1, 8, 1, 1) and reader.field.shape == (1, 8, 1, 1)


def test_a_value_per_channel_lies_along_the_weight() -> None:
    weights = Weights(convolutions())
    (reader,) = readers(weights)
    laid = reader.laid_along(np.arange(8.0).reshape(1, 8, 1, 1), weights)
    assert laid.shape == (1, 8, 1, 1) and (laid.reshape(-1) == np.arange(8)).all()


def test_axes_that_make_units() -> None:
    found = {(part.key, axis) for part, axis, _ in making_axes(Weights(convolutions()))}
    assert found == {("a", 0), ("depthwise", 0)}, "what reads units makes none"


def test_two_nodes_that_read_a_tensor_are_two_readers() -> None:
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w"), name="h")
    for i in range(2):
        net.output(net.add("MatMul", h, net.weight(6, 3, name=f"r{i}"), name=f"y{i}"))
    found = readers(Weights(api.trace(net.proto())))
    assert sorted(r.made for r in found) == ["y0", "y1"] and {r.tensor for r in found} == {"h"}


def test_positions_that_are_not_one_to_one_get_means() -> None:
    """Behind a flattening every channel lies at several inputs of the product."""
    net = Net()
    h = net.add("Conv", net.input([1, 3, 4, 4]), net.weight(6, 3, 3, 3, name="a"), name="h")
    net.output(net.add("MatMul", net.add("Flatten", h, axis=1, name="flat"), net.weight(24, 3, name="w")))
    weights = Weights(api.trace(net.proto()))
    (reader,) = readers(weights)
    values = np.arange(24.0).reshape(reader.field.shape)
    assert reader.laid_along(values, weights).reshape(-1) == pytest.approx(np.arange(24))
