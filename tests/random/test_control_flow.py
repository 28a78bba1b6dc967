"""Random graphs inside of branches, and with inputs and outputs that may shrink."""

from __future__ import annotations

from typing import Any

import onnx
from hypothesis import given
from onnx import TensorProto, helper

from onnxprune import api
from onnxprune.errors import GoalMissed
from tests.graphs.net import prune
from tests.graphs.random_graphs import images, mixed, options, sequences
from tests.random.test_graphs import quick


def in_branches(proto: onnx.ModelProto) -> onnx.ModelProto:
    """All nodes and weights of a model in either branch of an If, under the same names."""
    bodies = {}
    for name in ("then_branch", "else_branch"):
        graph = proto.graph
        ends = [helper.make_node("Identity", [o.name], [f"{o.name}_of_{name}"]) for o in graph.output]
        outputs = []
        for value in graph.output:
            outputs.append(onnx.ValueInfoProto())
            outputs[-1].CopyFrom(value)
            outputs[-1].name = f"{value.name}_of_{name}"
        bodies[name] = helper.make_graph(
            [*graph.node, *ends], name, [], outputs, graph.initializer, value_info=graph.value_info
        )
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for items in (made.graph.node, made.graph.initializer, made.graph.value_info):
        del items[:]
    for value in made.graph.output:
        value.name = f"{value.name}_chosen"
    made.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    made.graph.node.append(helper.make_node("If", ["which"], [o.name for o in made.graph.output], **bodies))
    return made


def check_branches(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    """What can be pruned in a graph can be in each of two branches, and is proven in both."""
    nested = in_branches(proto)
    heads = {k: v for k, v in chosen.items() if k in ("heads", "head_dims")}
    plain, twice = api.trace(proto, **heads), api.trace(nested, **heads)
    assert sorted(2 * [g.units for g in plain.groups]) == sorted(g.units for g in twice.groups)
    if plain.groups:
        check(nested, chosen)


def check(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    try:
        outcome = prune(proto, **chosen)
    except GoalMissed as missed:
        assert missed.message.startswith("nothing can be pruned"), missed.message
        return
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()


@quick(8)
@given(images(), options())
def test_images_in_branches(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check_branches(proto, chosen)


@quick(8)
@given(sequences(), options())
def test_sequences_in_branches(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check_branches(proto, chosen)


@quick(15)
@given(mixed(), options())
def test_inputs_and_outputs_may_shrink(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check(proto, chosen | {"allow_io_changes": True})
