"""If, Loop and Scan at every opset; what their bodies can hold is in test_flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import GoalMissed
from onnxprune.model import load, to_proto
from onnxprune.tracing import trace
from tests.graphs.net import BOOL, FLOAT, INT64, Net, feeds_of, prune, run
from tests.graphs.sandwich import Case, check_case, parameters


def graph(
    ops: list[tuple[str, str, str]], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    """A body of operators with one input and one output each."""
    return helper.make_graph([helper.make_node(op, [x], [y]) for op, x, y in ops], "body", inputs, outputs)


def floats(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, None)


def either(net: Net, x: str) -> str:
    then = graph([("Neg", x, "negated")], [], [floats("negated")])
    other = graph([("Tanh", x, "squashed")], [], [floats("squashed")])
    return net.add("If", net.input([], "flag", dtype=BOOL), then_branch=then, else_branch=other)


def around(net: Net, x: str) -> str:
    counters = [helper.make_tensor_value_info("step", INT64, []), helper.make_tensor_value_info("go", BOOL, [])]
    on = helper.make_tensor_value_info("on", BOOL, [])
    ops = [("Identity", "go", "on"), ("Tanh", "state", "next")]
    body = graph(ops, [*counters, floats("state")], [on, floats("next")])
    return net.add("Loop", net.const(np.array(3, np.int64)), net.const(np.array(True)), x, body=body)


def along(net: Net, x: str) -> str:
    return net.add("Scan", x, body=part(), num_scan_inputs=1)


def along_the_channels(net: Net, x: str) -> str:
    return net.add("Scan", x, body=part(), num_scan_inputs=1, scan_input_axes=[2], scan_output_axes=[2])


def along_with_a_batch(net: Net, x: str) -> str:
    """As it was in opset 8."""
    return net.add("Scan", "", x, body=part(), num_scan_inputs=1)


def part() -> onnx.GraphProto:
    return graph([("Tanh", "part", "squashed")], [floats("part")], [floats("squashed")])


CASES = [
    Case("If", "", either),
    Case("Loop", "", around),
    Case("Scan", "", along, since=9),
    Case("Scan", "channels", along_the_channels, units=0, why="the steps of a loop", since=9),
    Case("Scan", "batch", along_with_a_batch, units=0, why="has subgraphs", since=8, until=8),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_case(case: Case, version: int) -> None:
    check_case(case, version)


# --- branches whose outputs are of other lengths -----------------------------------------------------------


def nothing(net: Net, h: str) -> onnx.GraphProto:
    """A tensor without elements, as wide as the other branch's."""
    empty = helper.make_node("Constant", [], ["empty"], value=numpy_helper.from_array(np.zeros((0, 8), np.float32)))
    return helper.make_graph([empty], "body", [], [floats("empty")])


def twice(net: Net, h: str) -> onnx.GraphProto:
    """As wide as the other branch's, and longer."""
    return helper.make_graph([helper.make_node("Concat", [h, h], ["longer"], axis=0)], "body", [], [floats("longer")])


def across(net: Net, h: str) -> onnx.GraphProto:
    """Wider than the other branch's, and as long."""
    return helper.make_graph([helper.make_node("Concat", [h, h], ["wider"], axis=1)], "body", [], [floats("wider")])


def with_a_state(other: Callable[[Net, str], onnx.GraphProto]) -> onnx.ModelProto:
    """A layer whose units an If hands out beside the output, in one branch as they are."""
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input([3, 4]), net.weight(4, 8, name="first")))
    then = graph([("Neg", h, "negated")], [], [floats("negated")])
    state = net.add("If", net.input([], "flag", dtype=BOOL), then_branch=then, else_branch=other(net, h))
    net.output(net.add("MatMul", h, net.weight(8, 5, name="second")), [3, 5], FLOAT)
    net.output(state, ["rows", 8], FLOAT)
    return net.proto()


@pytest.mark.parametrize("other", [nothing, twice])
def test_axes_of_the_same_length_go_together(other: Callable[[Net, str], onnx.GraphProto]) -> None:
    proto = with_a_state(other)
    done = prune(proto, allow_io_changes=[proto.graph.output[1].name])
    assert done.verdict is not None and done.verdict.ok, done.verdict
    assert [(step.units, len(step.remove)) for step in done.plan.steps] == [(8, 4)]
    small = to_proto(done.model)
    left = np.setdiff1d(np.arange(8), done.plan.steps[0].remove)
    for flag in (True, False):
        feeds = feeds_of(proto) | {"flag": np.array(flag)}
        wanted, found = (run(one, feeds=feeds)[proto.graph.output[1].name] for one in (proto, small))
        assert found.shape == (len(wanted), 4)
        np.testing.assert_allclose(found, wanted[:, left], rtol=1e-6)


def test_axes_of_other_lengths_stay() -> None:
    proto = with_a_state(across)
    free = {"allow_io_changes": [proto.graph.output[1].name]}
    with pytest.raises(GoalMissed, match="nothing can be pruned"):
        prune(proto, **free)
    (reason,) = {barrier.reason for barrier in trace(load(proto), **free).barriers if barrier.op == "If"}
    assert reason == "the branches give other shapes"
