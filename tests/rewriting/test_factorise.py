"""A weight as a product of two."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.layers.factor_forms import SIDES, Directions
from onnxprune.model import to_proto
from onnxprune.names import FACTOR_FORMS
from onnxprune.rewriting.factorise import (
    GROUPED,
    TRANSPOSED,
    FactoriseStep,
    Factors,
    factorisable,
    unfactorisable,
    with_factors,
)
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
    chain = Directions("channel", leaving=rotation).chain(matrix, weight.kernel_sizes)
    split = with_factors(groups, [Factors(weight, "channel", chain)])
    assert len(split.proto.graph.node) == len(model.proto.graph.node) + 1
    onnx.checker.check_model(to_proto(split), full_check=True)
    for one, other in zip(run(model).values(), run(split).values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


CONVOLUTIONS = {
    "strided, padded on one side": ((1, 8, 11, 9), (6, 8, 3, 5), {"pads": [2, 0, 1, 3], "strides": [2, 3]}),
    "dilated": ((1, 8, 11, 13), (6, 8, 3, 3), {"pads": [0, 2, 3, 1], "dilations": [2, 3]}),
    "upper": ((1, 8, 11, 9), (6, 8, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    "lower": ((1, 8, 10, 9), (6, 8, 2, 4), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    "valid": ((1, 8, 10, 9), (6, 8, 2, 4), {"auto_pad": "VALID"}),
    "one axis": ((1, 8, 12), (6, 8, 5), {"pads": [3, 1], "strides": [2], "dilations": [2]}),
    "three axes": ((1, 4, 6, 7, 8), (6, 4, 3, 2, 3), {"pads": [1, 0, 2, 0, 1, 0], "strides": [1, 2, 1]}),
}


@pytest.mark.parametrize("form", FACTOR_FORMS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_chain_of_full_rank_gives_what_a_convolution_gives(name, form):
    shape, sizes, attributes = CONVOLUTIONS[name]
    net = Net()
    net.output(net.add("Conv", net.input(shape), net.weight(*sizes), net.weight(6), **attributes))
    model = net.model()
    groups = trace(model)
    (weight,) = factorisable(groups)
    known = weight.kernel_sizes
    if form not in known.forms():
        assert len(sizes) == 3 and form == "spatial"
        return
    matrix, rng = weight.as_matrix(model.array(weight.name)), np.random.default_rng(0)
    widths = (known.head(form), known.outputs)
    sides = zip(widths, SIDES[form], strict=True)
    turned = [np.linalg.qr(rng.standard_normal((n, n)))[0] if is_there else None for n, is_there in sides]
    directions = Directions(form, *turned)
    split = with_factors(groups, [Factors(weight, form, directions.chain(directions.entered(matrix), known))])
    onnx.checker.check_model(to_proto(split), full_check=True)
    for one, other in zip(run(model).values(), run(split).values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_why_a_weight_stays_whole():
    net = Net()
    x = net.add("Conv", net.input((1, 8, 7, 7)), net.weight(8, 2, 3, 3, name="grouped"), group=4)
    net.output(net.add("ConvTranspose", x, net.weight(8, 4, 3, 3, name="turned")))
    groups = trace(net.model())
    assert not factorisable(groups)
    assert {w.name: why for w, why in unfactorisable(groups)} == {"grouped": GROUPED, "turned": TRANSPOSED}


@pytest.mark.parametrize("form", FACTOR_FORMS)
def test_a_step_is_written_and_read(form):
    bases = [
        np.linalg.qr(np.random.default_rng(0).standard_normal((8, 3)))[0] if there else None for there in SIDES[form]
    ]
    step = FactoriseStep("w", Directions(form, *bases))
    again = FactoriseStep.from_json(step.as_json(), "$")
    assert again.directions.form == form and again.directions.ranks == step.directions.ranks
    for one, other in zip(bases, (again.directions.entering, again.directions.leaving), strict=True):
        assert (one is None and other is None) or np.allclose(one, other, atol=1e-6)
    with pytest.raises(UsageError, match=r"\$\.form"):
        FactoriseStep.from_json(step.as_json() | {"form": "none"}, "$")


def test_a_step_without_a_form_is_one_of_channels():
    step = FactoriseStep("w", Directions("channel", leaving=np.eye(4, 2)))
    raw = {name: value for name, value in step.as_json().items() if name != "form"}
    assert FactoriseStep.from_json(raw, "$").directions.form == "channel"
