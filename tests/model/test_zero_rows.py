"""The row of the table of zeros that holds for a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxprune.model import traits
from onnxprune.model.traits import Zero


def row_of(op: str, domain: str = "", exponent: np.ndarray | None = None, **attributes: Any) -> Zero | None:
    return traits.zero(helper.make_node(op, ["a", "b"], ["y"], domain=domain, **attributes), lambda slot: exponent)


@pytest.mark.parametrize(
    ("op", "domain", "attributes"),
    [
        ("FusedGemm", "com.microsoft", {"activation": 0.5}),
        ("HardSigmoid", "", {"beta": "half"}),
        ("Shrink", "", {"lambd": [0.5, 1.0]}),
        ("RNN", "", {"activations": 3}),
        ("GRU", "", {"activations": [1, 2]}),
        ("Clip", "", {"min": "low"}),
    ],
)
def test_attributes_of_a_wrong_type_leave_no_row(op: str, domain: str, attributes: dict[str, Any]) -> None:
    assert row_of(op, domain, **attributes) is None


def test_an_exponent_that_is_text_leaves_no_row() -> None:
    assert row_of("Pow", exponent=np.array(["two"], object)) is None


def test_attributes_of_the_right_type_decide() -> None:
    assert row_of("FusedGemm", "com.microsoft", activation="Relu") is not None
    assert row_of("FusedGemm", "com.microsoft", activation="Sigmoid") is None
    assert row_of("Pow", exponent=np.array([2.0])) is not None
