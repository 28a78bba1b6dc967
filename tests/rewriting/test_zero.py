"""What goes, set to zero in place."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

import onnxprune
from onnxprune.rewriting import Plan
from tests.graphs.net import Net, array_of, run, shapes_of, with_arrays


def test_zero_keeps_the_sizes_and_computes_the_same(plan: Plan, proto: onnx.ModelProto) -> None:
    zero, small = onnxprune.apply(proto, plan, zero=True), onnxprune.apply(proto, plan)
    assert shapes_of(zero) == shapes_of(proto)
    for name, mask in plan.masks(proto).items():
        value = array_of(zero, name)
        np.testing.assert_array_equal(value, np.where(mask, array_of(proto, name), 0))
    (a,), (b,) = run(zero).values(), run(small).values()
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(a).max())
    assert with_arrays(zero, {n: array_of(proto, n) for n in plan.masks(proto)}) == proto


def test_zero_of_weights_in_constant_nodes() -> None:
    from onnx import helper

    net = Net()
    x = net.make((2, 5, 8), 2)
    value = helper.make_tensor("kept_name", 1, [8], np.arange(1, 9, dtype=np.float32))
    factor = net.add("Constant", value=value)
    net.read(net.add("Mul", x, factor), 2)
    proto = net.proto()
    zero = onnxprune.apply(proto, onnxprune.make_plan(proto, 0.5), zero=True)
    node = next(n for n in zero.graph.node if n.op_type == "Constant")
    assert int((numpy_helper.to_array(node.attribute[0].t) == 0).sum()) == 4
    assert run(zero)
