"""Sums and norms of one operator, apart and together again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.model import Model
from onnxprune.model.skip_norms import sums_apart, sums_together
from tests.graphs.net import ops_of, run
from tests.graphs.skip_norms import PLAIN, SIMPLE, stream, without

KINDS = [(PLAIN, False), (PLAIN, True), (SIMPLE, False), (SIMPLE, True)]


@pytest.mark.parametrize(("kind", "bias"), KINDS)
def test_apart_is_the_same_function_and_together_the_same_model(kind: str, bias: bool) -> None:
    whole = Model(stream(kind, bias=bias))
    apart = sums_apart(whole)
    assert kind in ops_of(whole) and kind not in ops_of(apart)
    np.testing.assert_allclose(run(apart)["y"], run(whole)["y"], atol=1e-5)
    again = sums_together(apart, whole, apart)
    assert list(again.proto.graph.node) == list(whole.proto.graph.node)


@pytest.mark.parametrize(("kind", "bias"), KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_goes_and_the_others_stay_one_operator(kind: str, bias: bool, layer: int) -> None:
    """Against the original with zeros for what the layer adds; behind the input no sum is left to join."""
    proto = stream(kind, bias=bias)
    done = onnxprune.drop(proto, blocks=(f"layers.{layer}*",))
    assert done.report.verdict is not None and done.report.verdict.ok and len(done.report.dropped) == 1
    assert ops_of(done.model).count(kind) == 2 and "Add" not in ops_of(done.model)
    np.testing.assert_allclose(run(done.model)["y"], run(without(proto, layer))["y"], atol=1e-5)
    assert onnxprune.verify(proto, done.model, done.plan).ok
    again = onnxprune.apply(proto, onnxprune.Plan.from_json(done.plan.to_json()))
    assert again.SerializeToString() == done.model.SerializeToString()
    assert done.plan.is_made_for(Model(proto))


def test_a_repair_behind_the_layer() -> None:
    """Sums that a repair puts in are no part of the one operator."""
    inputs = np.random.default_rng(0).standard_normal((64, 4, 8)).astype(np.float32)
    done = onnxprune.drop(stream(bias=True), count=1, data={"x": inputs}).report
    assert done.repaired_verdict is not None and done.repaired_verdict.ok and SIMPLE in ops_of(done.model)


def test_where_no_sum_goes_on_nothing_changes() -> None:
    """As behind the layers of BERT, whose stream is normalised."""
    proto = stream(layers=1)
    model = Model(proto)
    assert sums_apart(model) is model and sums_together(model, model, model) is model


@pytest.mark.parametrize("place", [1, 2])
def test_statistics_that_are_read_hold_it_together(place: int) -> None:
    proto = stream(PLAIN)
    node = next(node for node in proto.graph.node if node.op_type == PLAIN)
    node.output[place] = "statistics"
    proto.graph.output.append(onnx.helper.make_tensor_value_info("statistics", onnx.TensorProto.FLOAT, None))
    assert ops_of(sums_apart(Model(proto))).count(PLAIN) == 1


def test_an_old_version_without_the_norm_stays() -> None:
    proto = stream(PLAIN)
    proto.opset_import[0].version = 16
    model = Model(proto)
    assert sums_apart(model) is model
