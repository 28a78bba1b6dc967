"""Gemm, MatMul and Einsum as matrix products: rows times matrix are the outputs of the operator."""

from __future__ import annotations

import pytest

from onnxprune.layers import Product
from tests.layers.products import Case, check

CASES: list[Case] = [
    ("Gemm", [5, 4], [6, 4], {"transB": 1, "alpha": 0.5}, 1),
    ("Gemm", [4, 5], [4, 6], {"transA": 1}, 1),
    ("MatMul", [2, 3, 4], [4, 6], {}, 1),
    ("MatMul", [2, 3, 4], [2, 4, 6], {}, 1),
    ("MatMul", [4, 6], [5, 4], {}, 0),
    ("Einsum", [2, 3, 4], [4, 5, 6], {"equation": "bsd,dnh->bsnh"}, 1),
    ("Einsum", [2, 3, 4, 5], [4, 5, 6], {"equation": "bsnh,nhd->bsd"}, 1),
    ("Einsum", [2, 3, 4], [2, 5, 4], {"equation": "bsd,bed->bse"}, 1),
]


@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_are_the_outputs(case: Case) -> None:
    layer = check(case)
    assert layer.positions == 1 and layer.sees_whole_windows


def test_where_the_channels_lie() -> None:
    last, turned = (check(case) for case in (CASES[0], ("MatMul", [4, 6], [5, 4], {}, 0)))
    assert isinstance(last, Product) and isinstance(turned, Product)
    assert last.is_last and not turned.is_last and last.scale == 0.5
