"""Orders in which nodes can run, and cycles."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.model.node_order import cycle, order, scopes, unsorted


def node(output: str, *inputs: str, **bodies: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If" if bodies else "Sum", list(inputs), [output], **bodies)


def body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(
        nodes, "body", [], [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [1])]
    )


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(nodes, "g", [], []))


def test_nodes_go_behind_what_they_read() -> None:
    listed = [node("c", "b"), node("b", "a"), node("a", "x"), node("d", "x")]
    assert unsorted(listed) and order(listed) == ([2, 1, 0, 3], [])
    assert not unsorted([listed[i] for i in order(listed)[0]])


def test_an_order_that_is_right_stays() -> None:
    listed = [node("a", "x"), node("b", "a"), node("c", "a")]
    assert not unsorted(listed) and order(listed) == ([0, 1, 2], [])


def test_what_a_body_reads_counts_and_what_it_makes_does_not() -> None:
    inner = body(node("own", "late"), node("out", "own"))
    listed = [node("y", "c", then_branch=inner, else_branch=inner), node("late", "x"), node("own", "x")]
    assert unsorted(listed) and order(listed)[0] == [1, 0, 2]


def test_cycles_and_what_waits_for_them_cannot_run() -> None:
    listed = [node("a", "c"), node("b", "a"), node("c", "b"), node("d", "c"), node("e", "x")]
    assert order(listed) == ([4], [0, 1, 2, 3])
    found = cycle(model(*listed))
    assert sorted(found) == ["a", "b", "c"] and found in (["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"])
    assert cycle(model(node("a", "x"), node("b", "a"))) == []


def test_a_cycle_in_a_body_is_found() -> None:
    inner = body(node("p", "q"), node("q", "p"))
    assert sorted(cycle(model(node("y", "c", then_branch=inner, else_branch=inner)))) == ["p", "q"]


def test_scopes_say_where_they_are() -> None:
    inner = body(node("out", "x"))
    proto = model(node("y", "c", then_branch=inner, else_branch=inner))
    proto.functions.append(helper.make_function("own", "f", ["x"], ["z"], [node("z", "x")], []))
    assert sorted(called for called, _ in scopes(proto)) == [
        "'body' of If 'y'", "'body' of If 'y'", "function 'f'", "the graph",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_random_orders_are_put_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    listed = [node(f"t{i}", *(f"t{j}" for j in rng.integers(0, i, 2)) if i else ("x",)) for i in range(30)]
    mixed = [listed[i] for i in rng.permutation(30)]
    found, left = order(mixed)
    assert not left and sorted(found) == list(range(30)) and not unsorted([mixed[i] for i in found])
