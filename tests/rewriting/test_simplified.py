"""What a graph does not need, left out."""

from __future__ import annotations

import numpy as np

from onnxprune.model import file_size
from onnxprune.rewriting.simplified import simplified, with_shared_weights, without_unread_outputs
from tests.graphs.net import Net
from tests.pipelines.test_compress import proven


def test_a_constant_that_is_larger_than_what_computes_it_is_not_stored():
    net = Net()
    x = net.input((1, 4096))
    wide = net.add("Expand", net.const(np.ones((1, 1), np.float32)), net.ints(1, 4096))
    net.output(net.add("Add", net.add("Identity", x), wide), [1, 4096])
    model = net.model()
    small = simplified(model)
    assert small is not model and file_size(small) < file_size(model)
    assert [n.op_type for n in small.proto.graph.node] == ["Expand", "Add"]


def test_equal_weights_are_stored_once():
    net = Net()
    x = net.input(("batch", 6))
    value = net.rng.standard_normal((6, 6)).astype(np.float32)
    first, second, other = net.const(value, "a"), net.const(value, "b"), net.const(value * np.float32(-1), "c")
    minus, plus = net.const(np.float32(-0.0), "minus"), net.const(np.float32(0.0), "plus")
    for weight in (first, second, other):
        x = net.add("Relu", net.add("MatMul", x, weight))
    net.output(net.add("Add", net.add("Add", x, minus), plus), ["batch", 6])
    small = with_shared_weights(net.model())
    assert [t.name for t in small.proto.graph.initializer] == ["a", "c", "minus", "plus"]
    proven(net.model(), small)


def test_outputs_that_nothing_reads_are_left_out():
    net = Net()
    x = net.input(("batch", 4, 6, 6))
    pooled, _ = net.add("MaxPool", x, outputs=2, kernel_shape=[2, 2])
    top, _ = net.add("Split", pooled, net.ints(2, 2), outputs=2, axis=1)
    net.output(top, None)
    small = without_unread_outputs(net.model())
    assert [len(n.output) for n in small.proto.graph.node] == [1, 2]
    proven(net.model(), small)
