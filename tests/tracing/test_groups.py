"""Groups: what they are made of, what they are called, and what locks the rest."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.errors import GoalMissed
from onnxprune.model import load
from tests.graphs.net import INT64, Net, array_of, group_of, prune, reasons_for, shapes_of, with_arrays


def two_layers() -> Net:
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    return net


def test_a_group_says_what_it_cuts() -> None:
    groups = api.trace(two_layers().proto())
    (group,) = groups.groups
    assert (group.name, group.kind, group.units, group.exact) == ("w_in", "channel", 8, True)
    assert [(m.tensor, m.axis, m.size, m.positions) for m in group.members] == [("w_in", 1, 8, 8), ("w_out", 0, 8, 8)]
    assert group.params == 3 * 8 + 8 * 4
    assert group.macs * 2 in (2 * 5 * 8 * 7, 2 * 5 * 8 * 7 * 2)
    assert groups.prunable == (56, 56)


def test_barriers_say_what_they_lock_and_how_much() -> None:
    net = two_layers()
    groups = api.trace(net.proto())
    found = {(b.reason, b.members): b.params for b in groups.barriers}
    assert found[f"graph input {net.inputs[0].name!r}", (("w_in", 0, 3),)] == 24
    assert found[f"graph output {net.outputs[0].name!r}", (("w_out", 1, 4),)] == 32
    assert len(found) == 2


def test_barriers_that_lock_most_come_first() -> None:
    params = [b.params for b in api.trace(two_layers().proto()).barriers]
    assert params == sorted(params, reverse=True)


def test_spatial_kernel_axes_are_no_news() -> None:
    net = Net()
    x = net.add("Conv", net.input([2, 3, 6, 6]), net.weight(8, 3, 3, 3, name="w"))
    net.read(x, 1)
    assert not reasons_for(api.trace(net.proto()), "w", 2)


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


def test_names_are_unique_whatever_the_tensors_are_called() -> None:
    """A weight that is cut by several groups, beside weights whose names look like numbered ones."""
    net = Net()
    for stem in ("w", "w#2", "w#3"):
        x = net.make((2, 5, 12), 2, weight=stem)
        for index, part in enumerate(net.add("Split", x, net.ints(4, 4, 4), outputs=3, axis=2)):
            net.read(part, 2, weight=f"{stem}_out{index}")
    groups = api.trace(net.proto()).groups
    names = [g.name for g in groups]
    assert len(names) == len(set(names)) == 9
    assert {"w", "w#2", "w#3"} <= set(names)


@pytest.mark.parametrize("name", ["onnx::MatMul_12", "12", "_3", "val_7", "/encoder/Constant_output_0"])
def test_weights_without_a_name_of_their_own_are_called_by_their_node(name: str) -> None:
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2, weight=name)), 2)
    (group,) = api.trace(net.proto()).groups
    assert group.name == "matmul_1_node"


def test_order_is_that_of_the_graph() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2, weight="z")
    for stem in ("m", "a"):
        x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8, name=stem)))
    net.read(x, 2)
    assert [g.name for g in api.trace(net.proto()).groups] == ["z", "m", "a"]


# --- shared weights ----------------------------------------------------------------------------------------


def two_scales(value: np.ndarray) -> Net:
    """Two layers of one width that are scaled by one initializer."""
    net = Net()
    scale = net.const(value.astype(np.float32), "scale")
    for name in ("a", "b"):
        x = net.make((2, 5, len(value)), 2, weight=f"w_{name}")
        net.read(net.add("Mul", net.add("Relu", x), scale), 2, weight=f"out_{name}")
    return net


def test_constants_that_are_all_equal_do_not_couple() -> None:
    net = two_scales(np.ones(8))
    groups = api.trace(net.proto())
    assert group_of(groups, "w_a", 1) is not group_of(groups, "w_b", 1)
    outcome = prune(net.proto(), ratios={"w_a": 0.25, "w_b": 0.75})
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    shapes = shapes_of(outcome.model)
    assert (shapes["w_a"], shapes["w_b"]) == ((3, 6), (3, 2))
    assert sorted(s for n, s in shapes.items() if n.startswith("scale")) == [(2,), (6,)]


def test_uses_that_are_cut_alike_share_one_copy() -> None:
    proto = two_scales(np.ones(8)).proto()
    same = {"w_b": array_of(proto, "w_a"), "out_b": array_of(proto, "out_a")}
    outcome = prune(with_arrays(proto, same))
    assert [n for n in shapes_of(outcome.model) if n.startswith("scale")] == ["scale"]


def test_a_constant_that_is_cut_at_one_use_and_whole_at_another() -> None:
    """Either order; the whole one may be read by something that no rule follows."""
    for swap in (False, True):
        net = Net()
        scale = net.const(np.ones(8, np.float32), "scale")
        cut = net.make((2, 5, 8), 2)
        whole = net.input([2, 5, 8], "whole")
        pairs = [(cut, "cut"), (whole, "whole")]
        for tensor, role in pairs[::-1] if swap else pairs:
            y = net.add("Mul", tensor, scale)
            if role == "cut":
                net.read(y, 2)
            else:
                net.output(y)
        outcome = prune(net.proto())
        assert outcome.verdict is not None
        assert outcome.verdict.ok, outcome.verdict.problem
        assert outcome.rolled_back == ()
        assert sorted(s for n, s in shapes_of(outcome.model).items() if n.startswith("scale")) == [(4,), (8,)]


def test_a_constant_that_is_cut_behind_a_reshape_and_whole_elsewhere() -> None:
    net = Net()
    scale = net.const(np.ones(8, np.float32), "scale")
    x = net.make((2, 8, 3, 3), 1)
    net.read(net.add("Mul", x, net.add("Reshape", scale, net.ints(8, 1, 1))), 1)
    net.output(net.add("LayerNormalization", net.input([2, 8], "whole"), scale))
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()


def test_weights_that_are_really_tied_stay_tied() -> None:
    """The same values at two uses: what one loses, the other loses."""
    net = two_scales(np.arange(1, 9))
    groups = api.trace(net.proto())
    assert group_of(groups, "w_a", 1) is group_of(groups, "w_b", 1)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert shapes_of(outcome.model)["scale"] == (4,)


def test_an_embedding_and_its_output_projection_stay_tied() -> None:
    net = Net()
    ids = net.input([2, 5], "ids", dtype=INT64)
    table = net.weight(11, 8, name="table")
    x = net.add("Gather", table, ids)
    x = net.add("Add", x, net.add("MatMul", net.add("Relu", x), net.weight(8, 8, name="w")))
    net.output(net.add("MatMul", x, net.add("Transpose", table, perm=[1, 0])))
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    shapes = shapes_of(outcome.model)
    assert shapes == {"table": (11, 4), "w": (4, 4)}


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


# --- balance -----------------------------------------------------------------------------------------------


def grouped(channels: int, *groups: int) -> Net:
    net = Net()
    x = net.make((2, channels, 3, 3), 1)
    for index, group in enumerate(groups):
        x = net.add("Conv", x, net.weight(channels, channels // group, 1, 1, name=f"w{index}"), group=group)
    net.read(x, 1)
    return net


@pytest.mark.parametrize(
    ("channels", "groups", "units"),
    [(12, (2, 3), 2), (12, (3, 2), 2), (24, (4, 6), 2), (24, (2, 3), 4), (36, (4, 6), 3), (12, (2, 2), 6)],
)
def test_crossing_rows_lose_in_proportion(channels: int, groups: tuple[int, int], units: int) -> None:
    outcome = prune(grouped(channels, *groups).proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    group = group_of(outcome.groups, "w0", 0)
    assert group is not None
    assert group.units == units == math.gcd(*(len(c) for c in group.cells))
    kept = outcome.plan.masks(outcome.groups.model)["w0"].any(axis=(1, 2, 3))
    for rows in groups:
        assert len(set(kept.reshape(rows, -1).sum(axis=1).tolist())) == 1


def test_rows_without_a_proportion_are_locked_with_a_reason() -> None:
    """Two rows of three and three rows of two: no number of channels can go from every row."""
    groups = api.trace(grouped(6, 2, 3).proto())
    assert group_of(groups, "w0", 0) is None
    assert "its rows cannot all lose the same number of positions" in reasons_for(groups, "w0", 0)


def test_a_barrier_in_one_row_locks_no_more_than_it_must() -> None:
    """One channel of a grouped convolution is an output: the rows can no longer lose the same, whatever the unit."""
    net = Net()
    x = net.make((2, 8, 3, 3), 1)
    y = net.add("Conv", x, net.weight(8, 4, 1, 1, name="w"), group=2)
    net.output(net.add("Slice", y, net.ints(0), net.ints(1), net.ints(1)))
    net.read(net.add("Conv", y, net.weight(8, 4, 1, 1, name="w2"), group=2), 1)
    try:
        outcome = prune(net.proto())
    except GoalMissed as missed:
        pytest.fail(str(missed))
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()


# --- kinds -------------------------------------------------------------------------------------------------


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


def test_weights_asked_for_after_tracing_have_no_labels_of_their_own() -> None:
    """Nothing may stand for positions that no group knows: criteria look at any input of a traced node."""
    net = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (int64[2] y) '
        "<float[4, 3] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}> { z = Unknown(x, w) y = Shape(w) }"
    )
    groups = api.trace(load(net, check=False))
    node = groups.tracing.model.proto.graph.node[1]
    groups.tracing.axes.pop("w", None)
    assert all((labels < 0).all() for labels in groups.tracing.labels(node, 0))
