"""Movements of the outputs, to first order."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune import api, criteria
from tests.criteria.gradient_nets import GRADIENT
from tests.criteria.nets import at, scored, values_of
from tests.graphs.net import Net, array_of


def linear(outputs: int = 1) -> onnx.ModelProto:
    """y = relu(x @ a) @ b, six units."""
    net = Net()
    x = net.input(["n", 5])
    h = net.add("Relu", net.add("MatMul", x, net.weight(5, 6, name="a")), name="h")
    net.output(net.add("MatMul", h, net.weight(6, outputs, name="b"), name="y"), ["n", outputs])
    return net.proto()


def inputs(count: int, batch: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((batch, 5)).astype(np.float32)} for _ in range(count)]


def test_taylor_is_the_squared_movement_of_the_output() -> None:
    """With one output, the square of a sign is one, and the first order of what is linear is all there is."""
    proto, runs = linear(), inputs(3, 4)
    h = values_of(proto, "h", runs).reshape(-1, 6)
    wanted = np.square(h * array_of(proto, "b").T).mean(axis=0)
    np.testing.assert_allclose(scored(proto, "taylor", "a", 1, runs=runs), wanted, rtol=1e-4)


def test_taylor_of_several_outputs_on_average() -> None:
    proto, runs = linear(4), inputs(200, 8)
    h = values_of(proto, "h", runs).reshape(-1, 6)
    wanted = np.square(h).mean(axis=0) * np.square(array_of(proto, "b")).sum(axis=1)
    np.testing.assert_allclose(scored(proto, "taylor", "a", 1, runs=runs), wanted, rtol=0.2)


def test_gradients_of_weights() -> None:
    """Of the weights that make a unit and read it; the squares of many random signs are near what they stand for."""
    proto, runs = linear(4), inputs(400, 2)
    x, h = (np.concatenate(parts) for parts in ([r["x"] for r in runs], [values_of(proto, "h", [r]) for r in runs]))
    h = h.reshape(-1, 6)
    a, b = array_of(proto, "a"), array_of(proto, "b")
    made = np.square(a) * (np.square(x).T @ ((h > 0) * np.square(b).sum(axis=1)))
    read = np.square(h).sum(axis=0)[:, None] * np.square(b)
    wanted = (made.sum(axis=0) + read.sum(axis=1)) / len(runs)
    np.testing.assert_allclose(scored(proto, "fisher", "a", 1, runs=runs), wanted, rtol=0.2)


def test_absolute_products_of_weights() -> None:
    """One output and one sample at a time, so that a sign changes nothing; what reads is a line, and does not count."""
    proto, runs = linear(), inputs(5, 1)
    x, h = np.stack([r["x"][0] for r in runs]), values_of(proto, "h", runs).reshape(-1, 6)
    made = array_of(proto, "a")[None] * x[:, :, None] * ((h > 0) * array_of(proto, "b").reshape(-1))[:, None, :]
    for name, function in (("taylor-weight", np.abs), ("fisher", np.square)):
        wanted = function(made).mean(axis=0).sum(axis=0)
        np.testing.assert_allclose(scored(proto, name, "a", 1, runs=runs), wanted, rtol=1e-4)


def test_a_unit_of_several_positions_is_one() -> None:
    """Behind Flatten a channel is several columns: their movements add up before they are squared."""
    net = Net()
    x = net.input(["n", 2, 3, 3])
    h = net.add("Flatten", net.add("Conv", x, net.weight(4, 2, 2, 2, name="a")), name="h")
    net.output(net.add("MatMul", h, net.weight(16, 1, name="b")), ["n", 1])
    proto, runs = net.proto(), [{"x": np.random.default_rng(i).random((3, 2, 3, 3), np.float32)} for i in range(2)]
    read = values_of(proto, "h", runs).reshape(-1, 16) * array_of(proto, "b").T
    wanted = np.square(read.reshape(-1, 4, 4).sum(axis=2)).mean(axis=0)
    np.testing.assert_allclose(scored(proto, "taylor", "a", 0, runs=runs), wanted, rtol=1e-4)


def test_a_norm_folded_or_not_makes_no_difference() -> None:
    """What a layer's weight is worth does not depend on where its scale is stored."""
    rng = np.random.default_rng(0)
    scale, spread = rng.random(6) + 0.5, rng.random(6) + 0.5
    found = []
    for folded in (False, True):
        net = Net(seed=1)
        x = net.input(["n", 3, 5, 5])
        weight = net.rng.standard_normal((6, 3, 3, 3)).astype(np.float32)
        factor = (scale / np.sqrt(spread + 1e-5)).astype(np.float32)
        if folded:
            h = net.add("Conv", x, net.const(weight * factor[:, None, None, None], "a"))
        else:
            stored = [net.const(v.astype(np.float32)) for v in (scale, np.zeros(6), np.zeros(6), spread)]
            h = net.add("BatchNormalization", net.add("Conv", x, net.const(weight, "a")), *stored)
        net.output(net.add("Conv", net.add("Relu", h), net.weight(2, 6, 3, 3, name="b")), ["n", 2, 1, 1])
        runs = [{"x": np.random.default_rng(2).standard_normal((1, 3, 5, 5)).astype(np.float32)}]
        found.append([scored(net.proto(), name, "a", 0, runs=runs) for name in GRADIENT])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_a_unit_has_one_score() -> None:
    groups = api.trace(linear())
    scores = criteria.score(groups, "taylor", runs=inputs(2, 3))
    np.testing.assert_array_equal(at(groups, scores, "a", 1), at(groups, scores, "b", 0))
