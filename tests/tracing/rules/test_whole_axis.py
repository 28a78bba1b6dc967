"""Labels through operators that work along some axes as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs.net import Net
from tests.graphs.sandwich import Case, check_case, parameters

IMAGE = (2, 8, 6, 4)


def products(axis: int):
    return lambda net, x: net.add("CumProd", net.add("Abs", x), net.const(np.int64(axis)))


def fourier(axis: int):
    def build(net: Net, x: str) -> str:
        if net.opset < 20:
            return net.add("DFT", x, axis=axis)
        return net.add("DFT", x, "", net.const(np.int64(axis)))

    return build


def windows(net: Net, x: str) -> str:
    return net.add("STFT", x, net.const(np.int64(4)), net.weight(8, scale=1.0))


def loss(op: str, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add(op, x, net.const(net.rng.integers(0, 5, (2, 8))), **attrs)

    return build


def cache(net: Net, x: str) -> str:
    return net.add("TensorScatter", x, net.weight(2, 3, 8), net.ints(1, 0), axis=1)


def deformed(net: Net, x: str) -> str:
    return net.add("DeformConv", x, net.weight(6, 8, 2, 2, name="w_conv"), net.weight(2, 8, 5, 3), net.weight(6))


def deformed_groups(net: Net, x: str) -> str:
    return net.add("DeformConv", x, net.weight(6, 4, 2, 2), net.weight(2, 8, 5, 3), group=2)


def grid(net: Net, x: str) -> str:
    return net.add("AffineGrid", x, net.ints(8, 1, 3, 4))


def cropped(net: Net, x: str) -> str:
    return net.add("CenterCropPad", x, net.ints(3, 6), axes=[2, 3])


LOSSES = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
CASES = [
    Case("CumProd", "along", products(2), exact=False),
    Case("CumProd", "across", products(1)),
    Case("Det", "", lambda net, x: net.add("Det", x), (8, 3, 3), 0, 0, until=21),
    Case("Det", "matrix", lambda net, x: net.add("Det", x), (2, 8, 8), 2, 0, 0, "determinant", until=21),
    Case("DFT", "across", fourier(1), (2, 5, 8, 1)),
    Case("DFT", "along", fourier(2), (2, 5, 8, 1), 2, 2, 0, "transformed"),
    Case("STFT", "", windows, (8, 32, 1), 0, 0),
    Case("STFT", "signal", windows, (2, 32, 1), 1, 0, 0, "transformed"),
    *(Case(op, "each", loss(op, reduction="none"), (2, 5, 8), 2, 1) for op in LOSSES),
    *(Case(op, "mean", loss(op), (2, 5, 8), 2, None, exact=False) for op in LOSSES),
    *(Case(op, "classes", loss(op, reduction="none"), (2, 8, 8), 1, 1, 0, "classes") for op in LOSSES),
    Case("DeformConv", "", deformed, IMAGE, 1, 1, others={("w_conv", 0): 6}, until=21),
    Case("DeformConv", "space", deformed, IMAGE, 3, 1, 0, "sampled at offsets", until=21),
    Case("DeformConv", "groups", deformed_groups, IMAGE, 1, 1, 0, "groups of a deformable", until=21),
    Case("AffineGrid", "", grid, (8, 2, 3), 0, 0),
    Case("AffineGrid", "matrix", grid, (8, 2, 3), 2, 0, 0, "affine matrix"),
    Case("CenterCropPad", "across", cropped, IMAGE, 1, 1),
    Case("CenterCropPad", "along", cropped, IMAGE, 2, 1, 0, "cropped or padded"),
    Case("TensorScatter", "", cache),
    Case("TensorScatter", "written", cache, (2, 8, 8), 1, 1, 0, "written in part"),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_along(case: Case, version: int) -> None:
    check_case(case, version)
