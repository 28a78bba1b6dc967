"""Weights times norms of inputs."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune import api, criteria
from tests.criteria.nets import at, batches, scored, values_of
from tests.graphs.net import Net, array_of


def test_wanda(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    """Every weight that reads the channel, in both readers, times the root mean square of the channel."""
    b, c = (array_of(net, n).astype(np.float64) for n in "bc")
    norm = [np.sqrt(np.square(hidden[:, i]).mean()) for i in range(8)]
    wanted = [(np.abs(b[:, i]).sum() + np.abs(c[:, i]).sum()) * norm[i] for i in range(8)]
    np.testing.assert_allclose(scored(net, "wanda", "a", 0, runs=batches()), wanted, rtol=1e-5)


def test_wanda_of_positions_that_one_unit_holds() -> None:
    """Behind Flatten a channel has a column per place: each is weighted with the norm at its own place."""
    net = Net()
    h = net.add("Relu", net.add("Conv", net.input(["n", 3, 4, 4]), net.weight(4, 3, 3, 3, name="a")), name="h")
    net.output(net.add("MatMul", net.add("Flatten", h), net.weight(16, 5, name="b"), name="y"), ["n", 5])
    proto, runs = net.proto(), batches(shape=(3, 4, 4))
    x, b = values_of(proto, "h", runs).reshape(-1, 16), np.abs(array_of(proto, "b")).sum(axis=1)
    columns = b * np.sqrt(np.square(x).mean(axis=0))
    got = scored(proto, "wanda", "a", 0, runs=runs)
    np.testing.assert_allclose(got, columns.reshape(4, 4).sum(axis=1), rtol=1e-5)


def attention() -> onnx.ModelProto:
    """Two heads of four: the heads' dimensions are read by no weight where queries meet keys."""
    net = Net()
    x = net.input(["n", 5, 6])

    def heads(name: str, order: list[int]) -> str:
        split = net.add("Reshape", net.add("MatMul", x, net.weight(6, 8, name=name)), net.ints(0, 5, 2, 4))
        return net.add("Transpose", split, perm=order, name=f"{name}_heads")

    q, k, v = heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1]), heads("v", [0, 2, 1, 3])
    mixed = net.add("MatMul", net.add("Softmax", net.add("MatMul", q, k), axis=-1), v)
    joined = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, 5, 8), name="joined")
    net.output(net.add("MatMul", joined, net.weight(8, 6, name="o"), name="y"), ["n", 5, 6])
    return net.proto()


def test_wanda_of_heads_and_of_their_dimensions() -> None:
    proto, runs = attention(), batches(shape=(5, 6))
    columns = np.abs(array_of(proto, "o")).sum(axis=1) * np.sqrt(
        np.square(values_of(proto, "joined", runs)).mean(axis=(0, 1))
    )
    np.testing.assert_allclose(
        scored(proto, "wanda", "v", 1, runs=runs), np.repeat(columns.reshape(2, 4).sum(axis=1), 4), rtol=1e-5
    )
    groups = api.trace(proto, head_dims=True)
    scores = criteria.score(groups, "wanda", runs=runs)
    np.testing.assert_allclose(at(groups, scores, "v", 1), columns, rtol=1e-5)
    q = np.sqrt(np.square(values_of(proto, "q_heads", runs)).mean(axis=(0, 2)))  # [head, dim]
    k = np.sqrt(np.square(values_of(proto, "k_heads", runs)).mean(axis=(0, 3)))
    np.testing.assert_allclose(at(groups, scores, "q", 1), (q + k).ravel(), rtol=1e-5)
