"""The axis of a stream's channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers.stream import channel_axis
from tests.graphs.net import Net


def axis_of(shape: Sequence[int], *ops: str) -> int:
    net = Net()
    h = net.add("Relu", net.input(shape), name="stream")
    for op in ops:
        channels = shape[1] if op in ("Conv", "BatchNormalization", "InstanceNormalization") else shape[-1]
        ones = [net.const(np.ones(channels, np.float32)) for _ in range(4)]
        inputs = {
            "Conv": lambda: [net.weight(3, shape[1], *[1] * (len(shape) - 2))],
            "MatMul": lambda: [net.weight(shape[-1], 3)],
            "BatchNormalization": lambda ones=ones: ones,
            "LayerNormalization": lambda ones=ones: ones[:1],
            "InstanceNormalization": lambda ones=ones: ones[:2],
        }.get(op, list)()
        h = net.add(op, h, *inputs)
    net.output(h)
    return channel_axis(api.trace(net.proto()), "stream")


@pytest.mark.parametrize(
    ("shape", "ops", "axis"),
    [
        ((2, 4, 5, 6), ("Conv",), 1),
        ((2, 4, 5), ("Conv",), 1),
        ((2, 4, 5), ("BatchNormalization",), 1),
        ((2, 4, 5), ("LayerNormalization",), 2),
        ((2, 4, 5, 6), ("LayerNormalization",), 3),
        ((2, 4, 5), ("MatMul",), 2),
        ((2, 4, 5, 6), ("Sigmoid", "Tanh", "MatMul"), 3),
        ((2, 4, 5, 6), ("Sigmoid",), 1),
        ((2, 4, 5), ("Sigmoid",), 2),
    ],
)
def test_the_first_that_reads_it_tells(shape: tuple[int, ...], ops: tuple[str, ...], axis: int) -> None:
    assert axis_of(shape, *ops) == axis
