"""Groups: what they are made of, what they are called, and what locks the rest."""

from __future__ import annotations

import pytest

from onnxprune import api
from onnxprune.errors import GoalMissed
from tests.graphs.net import Net, group_of, prune, reasons_for, shapes_of
from tests.tracing.traced_nets import two_layers


def test_a_residual_stream_is_one_group() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    for _ in range(3):
        inner = net.add("Relu", net.add("MatMul", x, net.weight(8, 6)))
        x = net.add("Add", x, net.add("MatMul", inner, net.weight(6, 8)))
    net.read(x, 2)
    groups = api.trace(net.proto()).groups
    assert sorted(len(g.members) for g in groups) == [2, 2, 2, 8]
    assert [g.units for g in groups] == [8, 6, 6, 6]


def test_order_is_that_of_the_graph() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2, weight="z")
    for stem in ("m", "a"):
        x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8, name=stem)))
    net.read(x, 2)
    assert [g.name for g in api.trace(net.proto()).groups] == ["z", "m", "a"]


def test_a_layer_that_is_used_twice() -> None:
    net = Net()
    x = net.input([2, 5, 6])
    w1, w2 = net.weight(6, 8, name="w1"), net.weight(8, 6, name="w2")
    for _ in range(2):
        x = net.add("MatMul", net.add("Relu", net.add("MatMul", x, w1)), w2)
    net.output(x)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert shapes_of(outcome.model) == {"w1": (6, 4), "w2": (4, 6)}


def attention(heads: int = 4, size: int = 6, groups: int = 0) -> Net:
    net = Net()
    x = net.input([2, 5, 8])
    groups = groups or heads

    def project(name: str, count: int) -> str:
        made = net.add("MatMul", x, net.weight(8, count * size, name=f"w_{name}"))
        return net.add("Transpose", net.add("Reshape", made, net.ints(0, 5, count, size)), perm=[0, 2, 1, 3])

    q, k, v = project("q", heads), project("k", groups), project("v", groups)
    if groups != heads:
        k, v = (
            net.add(
                "Reshape",
                net.add("Expand", net.add("Unsqueeze", t, net.ints(2)), net.ints(2, groups, heads // groups, 5, size)),
                net.ints(2, heads, 5, size),
            )
            for t in (k, v)
        )
    scores = net.add("Softmax", net.add("MatMul", q, net.add("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    back = net.add("Transpose", net.add("MatMul", scores, v), perm=[0, 2, 1, 3])
    net.output(
        net.add(
            "MatMul", net.add("Reshape", back, net.ints(0, 5, heads * size)), net.weight(heads * size, 8, name="w_o")
        )
    )
    return net


def test_heads_come_out_of_the_arithmetic() -> None:
    groups = api.trace(attention().proto())
    (group,) = [g for g in groups.groups if g.kind == "head"]
    assert group.units == 4
    assert {(m.tensor, m.axis) for m in group.members} == {("w_q", 1), ("w_k", 1), ("w_v", 1), ("w_o", 0)}


def test_head_dims_when_asked() -> None:
    groups = api.trace(attention().proto(), head_dims=True)
    assert {g.kind for g in groups.groups} == {"head dim"}
    assert {g.units for g in groups.groups} == {6}
    assert group_of(groups, "w_q", 1) is group_of(groups, "w_k", 1)
    assert group_of(groups, "w_v", 1) is group_of(groups, "w_o", 0)
    assert group_of(groups, "w_q", 1) is not group_of(groups, "w_v", 1)


def test_no_heads_when_told() -> None:
    groups = api.trace(attention().proto(), heads=False)
    assert groups.groups == ()
    assert "heads are left whole" in reasons_for(groups, "w_q", 1)


def test_query_heads_go_with_their_shared_keys() -> None:
    outcome = prune(attention(heads=4, groups=2).proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "w_k", 1)
    assert group is not None
    assert group.kind == "head"
    shapes = shapes_of(outcome.model)
    assert (shapes["w_q"][1], shapes["w_k"][1], shapes["w_v"][1], shapes["w_o"][0]) == (12, 6, 6, 12)


def test_a_model_without_weights() -> None:
    net = Net()
    net.output(net.add("Relu", net.input([2, 3])))
    assert api.trace(net.proto()).groups == ()
    with pytest.raises(GoalMissed, match="nothing can be pruned"):
        prune(net.proto())


def test_parts_of_the_graph_that_reach_no_output() -> None:
    net = two_layers()
    dead = net.add("MatMul", net.inputs[0].name, net.weight(3, 5, name="w_dead"))
    net.add("MatMul", dead, net.weight(5, 5, name="w_dead2"))
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert "w_dead" not in shapes_of(outcome.model)


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_may_have_no_names_or_equal_ones(name: str) -> None:
    proto = attention().proto()
    for node in proto.graph.node:
        node.name = name
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok or not outcome.verdict.runnable  # the runtime refuses equal names
    assert {g.kind for g in outcome.groups.groups} == {"head"}
    assert shapes_of(outcome.model)["w_q"] == (8, 12)
