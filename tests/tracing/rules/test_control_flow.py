"""If, Loop and Scan at every opset; what their bodies can hold is in test_flow."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.graphs.net import BOOL, FLOAT, INT64, Net
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
