"""Reasons that name the cause: one per first unknown, shares of weights once per weight."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune import api
from onnxprune.tracing import Barrier, Groups
from tests.graphs.net import FLOAT, Net


def unknown_behind(op: str, layers: int) -> onnx.ModelProto:
    net = Net(17)
    x = net.add("MatMul", net.input([4, 8]), net.weight(8, 8, name="front"))
    x = net.add(op, x, domain="my.ops")
    for layer in range(layers):
        x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8, name=f"w{layer}")))
    net.output(x, [4, 8], FLOAT)
    return net.proto()


def reasons_with(groups: Groups, part: str) -> list[Barrier]:
    return [barrier for barrier in groups.barriers if part in barrier.reason]


@pytest.mark.parametrize("layers", [1, 3, 9])
def test_one_line_for_all_that_follows(layers: int) -> None:
    groups = api.trace(unknown_behind("PartitionedCall", layers))
    (barrier,) = reasons_with(groups, "no shape is known")
    assert barrier.reason == "no rule for operator PartitionedCall of domain my.ops: behind it no shape is known"
    assert barrier.op == "PartitionedCall"
    assert {name for name, _, _ in barrier.members} == {"front", *(f"w{n}" for n in range(layers))}
    assert barrier.params == 64 * (layers + 1)


def test_two_causes_are_two_lines() -> None:
    net = Net(17)
    for op in ("One", "Other"):
        made = net.add(op, net.add("MatMul", net.input([4, 8], op), net.weight(8, 8)), domain="my.ops")
        net.output(net.add("MatMul", made, net.weight(8, 5)), [4, 5], FLOAT)
    found = reasons_with(api.trace(net.proto()), "no shape is known")
    assert {barrier.op for barrier in found} == {"One", "Other"}
    assert [barrier.params for barrier in found] == [64 + 40] * 2


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (16, 8), (7,)])
def test_an_element_is_locked_once_however_many_axes_are(shape: tuple[int, ...]) -> None:
    net = Net(17)
    net.output(net.add("Fancy", net.weight(*shape, name="w"), domain="my.ops"), ["n"], FLOAT)
    net.output(net.add("MatMul", net.input([2, 3]), net.weight(3, 4)), [2, 4], FLOAT)
    groups = api.trace(net.proto())
    (barrier,) = reasons_with(groups, "Fancy")
    assert barrier.params == int(np.prod(shape))
    total = groups.prunable[1]
    assert all(b.params <= total for b in groups.barriers)


def test_integer_tables_are_no_weights() -> None:
    net = Net(17)
    table = net.const(np.arange(40, dtype=np.int64).reshape(20, 2), "table")
    ids = net.add("Gather", table, net.input([3], "ids", dtype=TensorProto.INT64))
    rows = net.add("GatherND", net.weight(20, 20, 6, name="w"), ids)
    net.output(net.add("MatMul", rows, net.weight(6, 4)), [3, 4], FLOAT)
    groups = api.trace(net.proto())
    assert groups.prunable[1] == 20 * 20 * 6 + 6 * 4
    assert all(name != "table" for barrier in groups.barriers for name, _, _ in barrier.members)


@pytest.mark.parametrize("op", ["Gather", "GatherND", "GatherElements"])
def test_a_stored_index_is_not_computed(op: str) -> None:
    net = Net(17)
    index = net.const(np.array([[1, 0], [2, 2]], np.int64))
    attrs = {} if op == "GatherND" else {"axis": 0}
    x = net.add("Transpose", net.add("MatMul", net.input([5, 3]), net.weight(3, 4, name="w")), perm=[1, 0])
    net.output(net.add(op, x, index, **attrs), None, FLOAT)
    texts = {b.reason for b in api.trace(net.proto()).barriers if "w" in {name for name, _, _ in b.members}}
    assert texts & {"indexed by a table", "indexed in part"}
    assert not any("computed at run time" in text for text in texts)
