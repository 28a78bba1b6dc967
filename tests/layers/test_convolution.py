"""Convolutions as matrix products: patches times matrix are the outputs of the operator."""

from __future__ import annotations

import pytest

from tests.layers.products import Case, check

CASES: list[Case] = [
    ("Conv", [2, 4, 9, 8], [6, 4, 3, 2], {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}, 1),
    ("Conv", [2, 4, 9], [6, 2, 3], {"group": 2, "pads": [1, 1]}, 1),
    ("Conv", [2, 4, 9, 9], [4, 1, 3, 3], {"group": 4}, 1),
    ("Conv", [2, 4, 9, 8], [6, 4, 3, 2], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 1),
    ("Conv", [2, 4, 9, 8], [6, 4, 4, 2], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}, 1),
    ("ConvTranspose", [2, 4, 5, 4], [4, 6, 3, 2], {"strides": [2, 1], "pads": [1, 0, 0, 1]}, 1),
    ("ConvTranspose", [2, 4, 5], [4, 3, 3], {"group": 2, "strides": [2], "output_padding": [1], "pads": [2, 2]}, 1),
    ("ConvTranspose", [2, 4, 5, 5], [4, 6, 3, 3], {"dilations": [2, 1], "pads": [3, 3, 3, 3]}, 1),
]


@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_are_the_outputs(case: Case) -> None:
    layer = check(case)
    assert layer.positions > 1 and 0 in layer.drawn


@pytest.mark.parametrize(
    ("attributes", "whole"), [({}, True), ({"pads": [0, 1]}, False), ({"auto_pad": "VALID"}, True)]
)
def test_padding_is_seen(attributes: dict, whole: bool) -> None:
    assert check(("Conv", [2, 4, 9], [6, 4, 3], attributes, 1)).sees_whole_windows is whole


def test_a_spread_input_is_no_whole_window() -> None:
    plain, strided = (
        check(("ConvTranspose", [2, 4, 5], [4, 6, 3], {"strides": [s], "pads": [2, 2]}, 1)) for s in (1, 2)
    )
    assert plain.sees_whole_windows and not strided.sees_whole_windows
    assert plain.inner_axis == 0 and check(("Conv", [2, 4, 9], [6, 4, 3], {}, 1)).inner_axis == 1
