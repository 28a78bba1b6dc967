"""What names have in common."""

from __future__ import annotations

import pytest

from onnxprune.model.scopes import common_scope


@pytest.mark.parametrize(
    ("names", "scope"),
    [
        (["model.layers.0.attn.q", "model.layers.0.mlp.up"], "model.layers.0"),
        (["/encoder/layer.1/Add", "/encoder/layer.1/MatMul_3"], "encoder/layer.1"),
        (["model.layers.0.attn.q"], "model.layers.0.attn"),
        (["model.layer10.a", "model.layer1.a"], "model"),
        (["a.b.c", "x.y.z"], ""),
        (["onnx::MatMul_12", "layer.0.w", "layer.0.b"], ""),
        (["12", "layer.0.w", "layer.0.b"], "layer.0"),
        (["weight"], ""),
        ([], ""),
    ],
)
def test_common_scopes(names: list[str], scope: str) -> None:
    assert common_scope(names) == scope
