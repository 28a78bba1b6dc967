"""Sizes and types of fused operators, against those that the runtime makes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.model import load
from onnxprune.model.shapes import contrib
from onnxprune.model.shapes.infer import infer
from tests.graphs.net import run
from tests.graphs.sandwich import Case, parameters
from tests.graphs.sandwich import build as sandwich
from tests.tracing.rules import test_attention, test_fused, test_fused_attention

MODULES = (test_attention, test_fused, test_fused_attention)
CASES = [case for module in MODULES for case in module.CASES]
MADE_BY = (
    frozenset(("com.microsoft", op) for op in contrib._FUSED)
    | {("", "Attention"), ("", "RotaryEmbedding")}
    | {("com.microsoft", op) for op in contrib._STANDARD}
)


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_sizes_are_those_of_the_runtime(case: Case, version: int) -> None:
    proto = sandwich(case, version).proto()
    made = [o for n in proto.graph.node if (n.domain, n.op_type) in MADE_BY for o in n.output if o]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    static = infer(load(proto, check=False))
    for name, value in run(proto).items():
        assert static.shapes[name] == value.shape
        assert static.dtypes[name] == helper.np_dtype_to_tensor_dtype(value.dtype)


@pytest.mark.parametrize("op", sorted(test_fused.WITHOUT_KERNEL))
def test_sizes_without_kernel(op: str) -> None:
    """By hand, in the table of the operators that the runtime cannot run here."""
    shape, weights, made, attrs = test_fused.WITHOUT_KERNEL[op]
    names = ["x", *(f"w{i}" for i in range(len(weights)))]
    node = helper.make_node(op, names, ["y"], domain="com.microsoft", **attrs)
    found = contrib.infer_contrib(node, dict(zip(names, [shape, *weights], strict=True)), dict.fromkeys(names, 1), {})
    assert found == [(1, made)]


@pytest.mark.parametrize(
    ("attrs", "space"),
    [({}, (7, 5)), ({"strides": [2, 1]}, (4, 5)), ({"dilations": [1, 2], "pads": [1, 0, 0, 2]}, (8, 5))],
)
def test_nhwc_conv(attrs: dict[str, list[int]], space: tuple[int, int]) -> None:
    node = helper.make_node("NhwcConv", ["x", "w"], ["y"], domain="com.microsoft", **attrs)
    shapes = {"x": (2, 9, 7, 4), "w": (6, 3, 3, 4)}
    assert contrib.infer_contrib(node, shapes, {"x": 1}, {}) == [(1, (2, *space, 6))]


def test_what_is_unknown_stays_unknown() -> None:
    node = helper.make_node("SkipLayerNormalization", ["x", "skip", "gamma"], ["y"], domain="com.microsoft")
    assert contrib.infer_contrib(node, {}, {"x": 1}, {}) == []
    assert (
        contrib.infer_contrib(helper.make_node("Mystery", ["x"], ["y"], domain="com.microsoft"), {"x": (2,)}, {}, {})
        == []
    )
    total = helper.make_node(
        *("GroupQueryAttention", ["q", "k", "v", "pk", "pv", "lengths", "total"], ["y", "key", "value"]),
        domain="com.microsoft",
        num_heads=4,
        kv_num_heads=2,
    )
    shapes = {"q": (1, 3, 32), "k": (1, 3, 16), "v": (1, 3, 16), "pk": (1, 2, 9, 8), "pv": (1, 2, 9, 8)}
    assert contrib.infer_contrib(total, shapes, {"q": 1}, {}) == [(1, (1, 3, 32)), (1, None), (1, None)]
    known = contrib.infer_contrib(total, shapes, {"q": 1}, {"total": np.array(12)})
    assert known[1:] == [(1, (1, 2, 12, 8))] * 2
