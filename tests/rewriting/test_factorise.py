"""A weight as a product of two."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.model import to_proto
from onnxprune.rewriting.factorise import Factors, factorisable, with_factors
from onnxprune.tracing import trace
from tests.graphs.net import Net, run

SPLITS = {
    "MatMul": ((2, 3, 8), lambda net, x: net.add("MatMul", x, net.weight(8, 6))),
    "MatMul from the left": ((8, 3), lambda net, x: net.add("MatMul", net.weight(6, 8), x)),
    "Gemm": ((3, 8), lambda net, x: net.add("Gemm", x, net.weight(8, 6), net.weight(6), alpha=0.5, beta=2.0)),
    "Gemm, turned": (
        (8, 3),
        lambda net, x: net.add("Gemm", x, net.weight(6, 8), net.weight(3, 6), transA=1, transB=1, alpha=-1.5),
    ),
    "Einsum": ((2, 8, 3), lambda net, x: net.add("Einsum", x, net.weight(6, 8), equation="bit,oi->bto")),
    "Einsum over two axes": (
        (2, 4, 3),
        lambda net, x: net.add("Einsum", net.weight(3, 7, 4), x, equation="kol,blk->bo"),
    ),
    "Conv": (
        (1, 8, 7, 7),
        lambda net, x: net.add("Conv", x, net.weight(6, 8, 3, 3), net.weight(6), pads=[1] * 4, strides=[2, 2]),
    ),
    "Conv along one axis": (
        (1, 8, 9),
        lambda net, x: net.add("Conv", x, net.weight(6, 8, 3), auto_pad="SAME_LOWER"),
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_product_of_full_rank_gives_what_the_weight_gives(name):
    shape, build = SPLITS[name]
    net = Net()
    net.output(build(net, net.input(shape)))
    model = net.model()
    groups = trace(model)
    (weight,) = factorisable(groups)
    matrix = weight.as_matrix(model.array(weight.name))
    assert matrix.shape == weight.sizes
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6 if matrix.shape[1] < 7 else 7,) * 2))[0]
    split = with_factors(groups, [Factors(weight, matrix @ rotation, rotation.T)])
    assert len(split.proto.graph.node) == len(model.proto.graph.node) + 1
    onnx.checker.check_model(to_proto(split), full_check=True)
    for one, other in zip(run(model).values(), run(split).values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
