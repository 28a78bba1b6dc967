"""Zeros in weights, counted."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers.mask import Mask, mask_of
from tests.graphs.net import Net


def masked(first: np.ndarray, second: np.ndarray) -> Mask:
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input([2, 4]), net.const(first.astype(np.float32), "w1")))
    net.output(net.add("MatMul", h, net.const(second.astype(np.float32), "w2")))
    return mask_of(api.trace(net.proto()))


def test_zeros_and_whole_rows_of_them() -> None:
    first, second = np.ones((4, 6)), np.ones((6, 3))
    first[:, 2] = 0  # a unit that nothing makes, though the second weight reads it
    first[0, 0] = second[1, 1] = 0
    found = masked(first, second)
    assert found == Mask(zeros=6, elements=42, rows=4) and found.share == pytest.approx(6 / 42)


def test_no_zeros_and_no_weights() -> None:
    assert masked(np.ones((4, 6)), np.ones((6, 3))) == Mask(0, 42, 0)
    net = Net()
    net.output(net.add("Relu", net.input([2, 4])))
    assert mask_of(api.trace(net.proto())) == Mask(0, 0, 0) and Mask(0, 0, 0).share == 0.0


def test_a_weight_that_two_nodes_read_counts_once() -> None:
    net = Net()
    w = net.const(np.eye(4, dtype=np.float32), "w")
    net.output(net.add("MatMul", net.add("MatMul", net.input([2, 4]), w), w))
    assert mask_of(api.trace(net.proto())).elements == 16
