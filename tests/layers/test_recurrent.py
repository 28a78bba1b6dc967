"""Recurrent layers as matrix products."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers import RecurrentLayer, recurrent_layer
from tests.graphs.net import Net, array_of, run


def layer_of(net: Net) -> RecurrentLayer | None:
    views = api.trace(net.proto()).tracing.views
    return next(recurrent_layer(view) for view, _ in views if view.node.op_type in ("RNN", "LSTM", "GRU"))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_layer_without_squashing_is_its_matrix(direction: str, given: bool) -> None:
    """With the identity for an activation, the units behind a step are the product itself."""
    net, ways = Net(), 2 if direction == "bidirectional" else 1
    x = net.input([5, 3, 4])
    w, r, b = net.weight(ways, 6, 4, name="w"), net.weight(ways, 6, 6, name="r"), net.weight(ways, 12, name="b")
    state = [net.input([ways, 3, 6], name="state")] if given else []
    attributes = {"activations": ["Affine"] * ways, "activation_alpha": [1.0] * ways}
    entering = [x, w, r, b, *([""] if given else []), *state]
    made = net.add("RNN", *entering, name="y", hidden_size=6, direction=direction, **attributes)
    net.output(made, [5, ways, 3, 6])
    layer = layer_of(net)
    assert layer is not None and layer.weights == ["w", "r", "b"]
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((5, 3, 4)).astype(np.float32)}
    if given:
        feeds["state"] = rng.standard_normal((ways, 3, 6)).astype(np.float32)
    y = run(net.proto(), feeds=feeds)["y"]
    read = np.broadcast_to(layer.input_rows(feeds["x"]), (ways, 15, 4))
    rows = np.concatenate([read, layer.states_before(y, feeds.get("state"))], axis=2)
    weights = [array_of(net.proto(), name) for name in "wrb"]
    found = rows @ layer.matrix(*weights[:2]) + weights[2].reshape(ways, 2, 6).sum(axis=1)[:, None]
    np.testing.assert_allclose(found, layer.output_rows(y), rtol=1e-4, atol=1e-5)


def test_a_computed_weight_makes_no_layer() -> None:
    net = Net()
    x, w = net.input([5, 3, 4]), net.add("Relu", net.input([1, 6, 4]))
    net.output(net.add("RNN", x, w, net.weight(1, 6, 6), hidden_size=6), [5, 1, 3, 6])
    assert layer_of(net) is None
