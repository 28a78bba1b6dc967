"""What is asked of a finished trace."""

from __future__ import annotations

import onnx

from onnxprune import api
from onnxprune.model import load


def test_weights_asked_for_after_tracing_have_no_labels_of_their_own() -> None:
    """Nothing may stand for positions that no group knows: criteria look at any input of a traced node."""
    net = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (int64[2] y) '
        "<float[4, 3] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}> { z = Unknown(x, w) y = Shape(w) }"
    )
    groups = api.trace(load(net, check=False))
    node = groups.tracing.model.proto.graph.node[1]
    groups.tracing.axes.pop("w", None)
    assert all((labels < 0).all() for labels in groups.tracing.labels(node, 0))
