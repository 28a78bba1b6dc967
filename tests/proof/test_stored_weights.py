"""Weights of a result are those of the original without what goes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.model import Model, load, to_proto
from onnxprune.proof.stored_weights import weights
from onnxprune.rewriting import Removal
from onnxprune.rewriting.rewrite import rewrite
from tests.graphs.net import Net


def cut() -> tuple[Removal, Model]:
    net = Net()
    h = net.add("Gemm", net.input([2, 4]), net.weight(4, 6, name="w1"), net.weight(6, name="b1"))
    net.output(net.add("MatMul", net.add("Relu", h), net.weight(6, 3, name="w2")))
    groups = api.trace(net.proto())
    gone = np.zeros(groups.classes.count, bool)
    gone[groups.groups[0].classes[[1, 4]]] = True
    return Removal(groups, gone), rewrite(groups, gone)


def changed(small: Model, name: str, value: np.ndarray) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(to_proto(small))
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
    return load(proto)


def test_the_right_result_is_right_in_all_uses() -> None:
    found = weights(*cut())
    assert (found.count, found.problem, found.wrong) == (3, "", "")


@pytest.mark.parametrize("name", ["w1", "b1", "w2"])
def test_one_wrong_element_is_found_and_its_group_named(name: str) -> None:
    removal, small = cut()
    value = small.array(name).copy()
    value.reshape(-1)[1] = np.nextafter(value.reshape(-1)[1], np.float32(9))
    found = weights(removal, changed(small, name, value))
    assert found.wrong == name and f"weight '{name}' of" in found.problem
    assert found.groups == (removal.groups.groups[0].name,)


def test_units_in_another_order_are_wrong() -> None:
    removal, small = cut()
    assert weights(removal, changed(small, "w2", small.array("w2")[::-1].copy())).wrong == "w2"


def test_another_type_is_wrong() -> None:
    removal, small = cut()
    assert weights(removal, changed(small, "w2", small.array("w2").astype(np.float64))).wrong == "w2"
