"""Parameters that are not zero."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune import api
from onnxprune.cost.counts import of
from onnxprune.cost.nonzeros import count_nonzeros
from onnxprune.model import load
from tests.graphs.net import Net


def proto_of(first: np.ndarray) -> onnx.ModelProto:
    net = Net()
    h = net.add("Add", net.add("MatMul", net.input([2, 4]), net.const(first.astype(np.float32), "w")), net.weight(6))
    net.output(net.add("Reshape", h, net.ints(6, 2)))
    return net.proto()


def test_zeros_of_weights_do_not_count_and_sizes_never_do() -> None:
    whole = np.ones((4, 6))
    holes = whole.copy()
    holes[1, :4] = 0
    groups = api.trace(proto_of(whole))
    original = load(proto_of(whole))
    assert count_nonzeros(groups, original) == of(original).params == 30
    assert count_nonzeros(groups, load(proto_of(holes))) == 26
