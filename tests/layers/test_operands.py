"""The inputs of operators that multiply whole numbers."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.layers.operands import _OPERANDS, float_operand, operands_of, scale_behind, weight_axes
from onnxprune.model.traits import TRAITS
from tests.graphs.quantized import BLOCKS, DYNAMIC, quantizable, quantized


@pytest.mark.parametrize(("domain", "op"), sorted(_OPERANDS))
def test_slots_are_those_of_the_traits(domain: str, op: str) -> None:
    traits, operands = TRAITS[domain, op], _OPERANDS[domain, op]
    assert traits.weight == operands.weight
    assert traits.zero_points in (((operands.weight, operands.zero),), ())


@pytest.mark.parametrize("op", sorted(op for domain, op in _OPERANDS if not domain))
def test_slots_are_those_of_the_standard(op: str) -> None:
    names = [i.name for i in onnx.defs.get_schema(op).inputs]
    operands = _OPERANDS["", op]
    slots = {"scale": operands.scale, "zero_point": operands.zero}
    for role, slot in slots.items():
        if slot is not None:
            assert role in names[slot] and names[slot].startswith(names[operands.weight].lower())
    assert names[operands.x].lower() in ("x", "a")


def test_other_operators_have_none() -> None:
    assert operands_of(helper.make_node("MatMul", ["x", "w"], ["y"])) is None
    assert operands_of(helper.make_node("QGemm", ["x"] * 6, ["y"])) is None, "it is no standard operator"
    assert operands_of(helper.make_node("MatMulInteger", ["x", "w"], ["y"], domain="ai.onnx")) is not None


def test_around_an_integer_product() -> None:
    proto, _ = quantizable("products")
    tracing = api.trace(quantized(proto, DYNAMIC, [])).tracing
    first = next(v.node for v, _ in tracing.views if v.node.op_type == "MatMulInteger")
    operands = operands_of(first)
    assert operands is not None and float_operand(tracing, first, operands) == "x"
    assert tracing.known_value(scale_behind(tracing, first)).size == 1
    relu = next(v.node for v, _ in tracing.views if v.node.op_type == "Relu")
    assert scale_behind(tracing, relu) == ""


def test_a_packed_weight_has_the_axes_of_a_matrix() -> None:
    proto, _ = quantizable("products")
    view = api.trace(quantized(proto, BLOCKS, [])).tracing.views[0][0]
    shape, axes = weight_axes(view, 1)
    assert shape == (16, 64) and [len(a) for a in axes if len(a) > 1] == [64]
    plain = next(v for v, _ in api.trace(proto).tracing.views if v.node.op_type == "MatMul")
    assert weight_axes(plain, 1)[0] == (16, 64)
