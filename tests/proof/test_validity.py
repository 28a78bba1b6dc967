"""What onnx says of a result, and what is too large to be run."""

from __future__ import annotations

import onnx
import pytest

from onnxprune import api
from onnxprune.model import Model, load
from onnxprune.proof import validity
from onnxprune.proof.validity import has_long_list, too_large, valid
from tests.graphs.net import Net


def good() -> onnx.ModelProto:
    net = Net()
    net.output(net.add("MatMul", net.input([2, 4]), net.weight(4, 3, name="w")))
    return net.proto()


def bad() -> onnx.ModelProto:
    proto = good()
    proto.graph.node[0].input[1] = "nothing"
    return proto


def test_a_complaint_counts_unless_the_original_has_one_too() -> None:
    assert valid(load(good()), load(good())) == ""
    said = valid(load(good()), Model(bad()))
    assert "nothing" in said and "\n" not in said
    assert valid(Model(bad()), Model(bad())) == ""


def test_shapes_that_contradict_are_a_complaint() -> None:
    proto = good()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    assert valid(load(good()), Model(proto))


def test_a_tensor_that_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = api.trace(good())
    assert too_large(groups) == ""
    monkeypatch.setattr(validity, "LARGEST_RUN", 20)
    (made,) = (n.output[0] for n in good().graph.node)
    assert "tensor 'x' of shape [2, 4] is too large" in too_large(groups) or made in too_large(groups)


def test_all_tensors_together_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validity, "shortage", lambda size: "takes 9.0 GiB of memory" if size > 1 else "")
    assert too_large(api.trace(good())).startswith("a run takes 9.0 GiB of memory")


def test_long_lists_are_told() -> None:
    assert not has_long_list(api.trace(good()))
    net = Net()
    net.output(net.add("Range", net.const(0), net.const(validity.LONGEST_LIST + 1), net.const(1)))
    assert has_long_list(api.trace(net.proto()))
