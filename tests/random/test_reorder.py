"""Whatever the graph: units of groups that may change places do so without a change of any output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.model import load, to_proto
from onnxprune.pipelines.unit_order import proven_order
from onnxprune.proof import Trials, equals
from onnxprune.rewriting import ReorderStep, why_fixed, with_order
from onnxprune.tracing import trace
from tests.graphs.net import shapes_of
from tests.graphs.random_graphs import FAMILIES
from tests.random.test_graphs import LONG, quick


def check(proto: onnx.ModelProto, seed: int) -> int:
    """Put the units of every group that may be into a random order; how many groups there were."""
    groups = trace(load(proto))
    rng = np.random.default_rng(seed)
    free = [g for g in groups.groups if not why_fixed(groups, g)]
    steps = [ReorderStep(g.name, tuple(rng.permutation(len(g.classes)).tolist())) for g in free]
    if not steps:
        return 0
    found = proven_order(groups, steps, sizes={})
    assert shapes_of(to_proto(found)).items() >= shapes_of(proto).items()
    back = [ReorderStep(step.group, tuple(np.argsort(step.order).tolist())) for step in steps]
    again = to_proto(with_order(trace(found), back))
    before = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for tensor in again.graph.initializer:
        if tensor.name in before:
            np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), before[tensor.name])
    return len(steps)


@pytest.mark.parametrize("family", FAMILIES)
def test_orders_of_units_change_no_output(family: str) -> None:
    seen: list[int] = []

    @quick(25)
    @given(FAMILIES[family](), st.integers(0, 99))
    def every(proto: onnx.ModelProto, seed: int) -> None:
        seen.append(check(proto, seed))

    every()
    assert sum(seen) > 5


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_orders_of_units_change_no_output_in_many_graphs(family: str) -> None:
    @quick(LONG // len(FAMILIES) // 5)
    @given(FAMILIES[family](), st.integers(0, 99))
    def every(proto: onnx.ModelProto, seed: int) -> None:
        check(proto, seed)

    every()


def test_an_order_of_one_weight_alone_would_be_noticed() -> None:
    proto = onnx.load("models/digits.onnx")
    groups = trace(load("models/digits.onnx"))
    group = next(g for g in groups.groups if not why_fixed(groups, g))
    member = group.members[0]
    tensor = next(t for t in proto.graph.initializer if t.name == member.tensor)
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.flip(value, member.axis).copy(), tensor.name))
    assert not equals(groups, load(proto), Trials()).ok
