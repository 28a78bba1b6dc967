"""The account of one weight that got zeros."""

from __future__ import annotations

from onnxprune.pipelines.sparsified import SparseWeight


def test_elements_are_those_of_all_axes() -> None:
    weight = SparseWeight("w", "conv", "Conv", (4, 3, 2), zeros=5, before=1, method="wanda")
    assert weight.elements == 24
    assert (weight.stored, weight.refitted, weight.error) == ("dense", False, None)
