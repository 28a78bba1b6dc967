"""A net of convolutions, runs of it, and scores of its weights' positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from onnxprune import api, criteria
from onnxprune.tracing import Groups
from tests.graphs.net import Net, array_of, run

DATA = ("activation", "apoz", "wanda", "fluctuation")


def at(groups: Groups, scores: np.ndarray, tensor: str, axis: int) -> np.ndarray:
    """The score of every position along an axis of a weight."""
    return scores[groups.classes.of[np.ravel(groups.tracing.axes[tensor][axis])]]


def scored(proto: onnx.ModelProto, criterion: Any, tensor: str, axis: int, **given: Any) -> np.ndarray:
    groups = api.trace(proto)
    return at(groups, criteria.score(groups, criterion, **given), tensor, axis)


def convolutions() -> onnx.ModelProto:
    """Conv a -> Relu -> Conv b and Conv c side by side, their outputs added: a is read twice."""
    net = Net()
    x = net.input(["n", 3, 6, 6])
    h = net.add("Relu", net.add("Conv", x, net.weight(8, 3, 3, 3, name="a"), net.weight(8, name="a_bias"), name="ah"))
    left = net.add("Conv", h, net.weight(5, 8, 3, 3, name="b"), pads=[1, 1, 1, 1])
    right = net.add("Conv", h, net.weight(5, 8, 1, 1, name="c"))
    left = net.add("Conv", left, net.weight(5, 5, 1, 1, name="d"))
    net.output(net.add("Add", left, right, name="y"), ["n", 5, 4, 4])
    return net.proto()


def batches(count: int = 3, shape: tuple[int, ...] = (3, 6, 6)) -> list[dict[str, np.ndarray]]:
    """Runs of different sizes, away from zero so that moments about it and about the mean differ."""
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal((2 + i, *shape)).astype(np.float32) + 0.5} for i in range(count)]


def values_of(proto: onnx.ModelProto, tensor: str, runs: list[dict[str, np.ndarray]]) -> np.ndarray:
    """A tensor on all runs, in float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return np.concatenate([run(copy, feeds=feeds)[tensor] for feeds in runs]).astype(np.float64)


def held(proto: onnx.ModelProto) -> list[list[np.ndarray]]:
    """Per channel of a: what it holds in every weight but its bias, as flat float64."""
    a, b, c = (array_of(proto, n).astype(np.float64) for n in ("a", "b", "c"))
    return [[a[i].ravel(), b[:, i].ravel(), c[:, i].ravel()] for i in range(8)]
