"""What all layers have in common."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.layers import LinearLayer
from tests.layers.products import check


def test_rows_by_channel() -> None:
    """Every position of a kernel is a row of its own."""
    layer = check(("Conv", [2, 4, 9], [6, 2, 3], {"group": 2}, 1))
    rows = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6)
    found = layer.channels(rows)
    assert found.shape == (2, 15, 2)
    assert found[1, 0].tolist() == [rows[1, 0, 0], rows[1, 0, 3]] and found[1, 4].tolist() == [
        rows[1, 1, 1],
        rows[1, 1, 4],
    ]


def test_a_product_has_one_position() -> None:
    layer = check(("MatMul", [3, 4], [4, 6], {}, 1))
    rows = np.ones((1, 5, 4), np.float32)
    assert layer.positions == 1 and layer.input == "x" and (layer.channels(rows) == rows).all()


def test_the_side_of_the_weight() -> None:
    assert check(("MatMul", [4, 6], [5, 4], {}, 0)).input == "x"


def test_a_layer_says_how_its_weight_is_a_matrix() -> None:
    with pytest.raises(TypeError, match="abstract"):
        LinearLayer(None)  # type: ignore[abstract, arg-type]
