"""Labels through operators that move positions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.api import trace
from onnxprune.model import load
from onnxprune.tracing.rules.layout import EXPANDED
from tests.graphs.net import Net, array_of, group_of, prune, reasons_for, run, shapes_of
from tests.graphs.sandwich import Case, build, check_case, parameters

IMAGE = (2, 8, 6, 4)
ROW = "row of a split axis"


def reshape(*target: int, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add("Reshape", x, net.ints(*target), **attrs)

    return build


def there_and_back(*middle: int, back: tuple[int, ...] = (2, 24), act: bool = True):
    def build(net: Net, x: str) -> str:
        rows = net.add("Reshape", x, net.ints(*middle))
        return net.add("Reshape", net.add("Relu", rows) if act else rows, net.ints(*back))

    return build


def target_of(net: Net, x: str, *entries: int | str) -> str:
    """A target that is computed: "0" is the size of axis 0 of `x`, numbers are themselves."""
    parts = []
    shape = net.add("Shape", x)
    for entry in entries:
        if isinstance(entry, str):
            part = net.add("Gather", shape, net.const(np.int64(entry)))
            parts.append(net.listed("Unsqueeze", part, [0], since=13))
        else:
            parts.append(net.ints(entry))
    return net.add("Concat", *parts, axis=0)


def computed_split(net: Net, x: str) -> str:
    return net.add("Reshape", x, target_of(net, x, "0", 4, 6))


def computed_merge(net: Net, x: str) -> str:
    """Channels times positions, multiplied in the graph."""
    shape = net.add("Shape", x)
    sizes = [net.add("Gather", shape, net.ints(i)) for i in range(3)]
    return net.add("Reshape", x, net.add("Concat", sizes[0], net.add("Mul", sizes[1], sizes[2]), axis=0))


def computed_halves(net: Net, x: str) -> str:
    """Half of the channels, divided in the graph."""
    shape = net.add("Shape", x)
    sizes = [net.add("Gather", shape, net.ints(i)) for i in range(2)]
    half = net.add("Div", sizes[1], net.ints(2))
    return net.add("Reshape", x, net.add("Concat", sizes[0], net.ints(2), half, axis=0))


def flatten(axis: int | None):
    def build(net: Net, x: str) -> str:
        return net.add("Flatten", x, axis=axis)

    return build


def squeeze(axes: list[int] | None):
    def build(net: Net, x: str) -> str:
        return net.listed("Squeeze", x, axes, since=13)

    return build


def unsqueeze(axes: list[int]):
    def build(net: Net, x: str) -> str:
        return net.listed("Unsqueeze", x, axes, since=13)

    return build


def plain(op: str, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add(op, x, **attrs)

    return build


def joined(shape: tuple[int, ...], labelled: int, axis: int):
    def build(net: Net, x: str) -> str:
        return net.add("Concat", x, net.make(shape, labelled, weight="w_other"), axis=axis)

    return build


def joined_to_constant(net: Net, x: str) -> str:
    return net.add("Concat", net.weight(2, 5, 3, name="c_front"), x, axis=-1)


def joined_to_input(net: Net, x: str) -> str:
    return net.add("Concat", x, net.input([2, 1, 8], "token"), axis=1)


def joined_with_itself(net: Net, x: str) -> str:
    return net.add("Concat", x, net.add("Neg", x), axis=2)


def expand(*target: int):
    def build(net: Net, x: str) -> str:
        return net.add("Expand", x, net.ints(*target))

    return build


def expand_computed(net: Net, x: str) -> str:
    return net.add("Expand", x, target_of(net, x, "0", 3, "2"))


def expand_made(net: Net, x: str) -> str:
    """The labelled axis of another tensor is made by Expand."""
    other = net.add("Expand", net.input([2, 5, 1], "narrow"), net.ints(2, 5, 8))
    return net.add("Add", x, other)


def tile(*repeats: int):
    def build(net: Net, x: str) -> str:
        return net.add("Tile", x, net.ints(*repeats))

    return build


def constant_of_shape(net: Net, x: str) -> str:
    ones = net.add("ConstantOfShape", net.ints(5, 8), value=one())
    return net.add("Mul", x, ones)


def constant_of_shape_computed(net: Net, x: str) -> str:
    return net.add("Add", x, net.add("ConstantOfShape", net.add("Shape", x), value=one()))


def one():
    return helper.make_tensor("one", 1, [1], [1.5])


def attention_split(net: Net, x: str) -> str:
    """Rows of a split that become the batch of a product: heads."""
    rows = net.add("Transpose", net.add("Reshape", x, net.ints(2, 5, 4, 6)), perm=[0, 2, 1, 3])
    scores = net.add("MatMul", rows, net.add("Transpose", rows, perm=[0, 1, 3, 2]))
    mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), rows)
    return net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(2, 5, 24))


CASES = [
    Case("Reshape", "split-inner", reshape(2, 4, 6), (2, 24), 1, 2, units=6),
    Case("Reshape", "split-outer", reshape(2, 4, 6), (2, 24), 1, 1, units=4),
    Case("Reshape", "split-three-inner", reshape(2, 2, 3, 4), (2, 24), 1, 3, units=4),
    Case("Reshape", "split-three-middle", reshape(2, 2, 3, 4), (2, 24), 1, 2, units=3),
    Case("Reshape", "split-three-outer", reshape(2, 2, 3, 4), (2, 24), 1, 1, units=2),
    Case("Reshape", "split-rest", reshape(0, -1, 6), (2, 24), 1, 1, units=4),
    Case("Reshape", "split-rest-inner", reshape(0, 4, -1), (2, 24), 1, 2, units=6),
    Case("Reshape", "zero-means-zero", reshape(2, 4, 6, allowzero=1), (2, 24), 1, 2, units=6, since=14),
    Case("Reshape", "merge-inner", reshape(2, 24), (2, 4, 6), 2, 1, units=6),
    Case("Reshape", "merge-outer", reshape(2, -1), (2, 4, 6), 1, 1, units=4),
    Case("Reshape", "merge-middle", reshape(2, 24), (2, 2, 3, 4), 2, 1, units=3),
    Case("Reshape", "merge-batch", reshape(-1, 8), (2, 5, 8), 2, 1),
    Case("Reshape", "merge-with-batch", reshape(16, 5), (2, 8, 5), 1, 0),
    Case("Reshape", "ones", reshape(2, 1, 5, 1, 8), out=4),
    Case("Reshape", "same", reshape(0, 0, -1)),
    Case("Reshape", "round-trip", there_and_back(2, 4, 6), (2, 24), 1, 1, units=6),
    Case("Reshape", "regroup", there_and_back(2, 4, 6, back=(2, 3, 8)), (2, 24), 1, 2, units=2),
    Case("Reshape", "spatial-round-trip", there_and_back(2, 8, 24, back=(2, 8, 6, 4)), IMAGE, 1, 1),
    Case("Reshape", "other-axis", there_and_back(2, 5, 2, 8, back=(20, 8)), (2, 10, 8), 2, 1),
    Case("Reshape", "computed-split", computed_split, (2, 24), 1, 2, units=6),
    Case("Reshape", "computed-split-outer", computed_split, (2, 24), 1, 1, units=4),
    Case("Reshape", "computed-merge", computed_merge, (2, 4, 6), 1, 1, units=4),
    Case("Reshape", "computed-merge-inner", computed_merge, (2, 4, 6), 2, 1, units=6),
    Case("Reshape", "computed-halves", computed_halves, (2, 8), 1, 2, units=4),
    Case("Reshape", "computed-halves-outer", computed_halves, (2, 8), 1, 1, units=2),
    Case("Reshape", "heads", attention_split, (2, 5, 24), 2, 2, units=4),
    Case(
        "Reshape",
        "no-heads",
        attention_split,
        (2, 5, 24),
        2,
        2,
        units=0,
        why="heads are left whole",
        options={"heads": False},
    ),
    Case("Flatten", "default", flatten(None), IMAGE, 1, 1),
    Case("Flatten", "behind", flatten(2), IMAGE, 1, 0),
    Case("Flatten", "last", flatten(3), IMAGE, 3, 1, units=4),
    Case("Flatten", "negative", flatten(-2), IMAGE, 2, 1, units=6, since=11),
    Case("Flatten", "zero", flatten(0), (1, 8, 3), 1, 1),
    Case("Squeeze", "one", squeeze([1]), (2, 1, 8), 2, 1),
    Case("Squeeze", "two", squeeze([0, -1]), (1, 5, 8, 1), 2, 1, since=11),
    Case("Squeeze", "all", squeeze(None), (1, 5, 1, 8), 3, 1),
    Case("Unsqueeze", "front", unsqueeze([0]), out=3),
    Case("Unsqueeze", "two", unsqueeze([1, 4]), out=3),
    Case("Unsqueeze", "negative", unsqueeze([-1]), out=2, since=11),
    Case("Transpose", "default", plain("Transpose"), out=0),
    Case("Transpose", "perm", plain("Transpose", perm=[1, 2, 0]), out=1),
    Case("Concat", "along", joined((2, 5, 6), 2, 2), others={("w_other", 1): 6}),
    Case("Concat", "along-negative", joined((2, 5, 6), 2, -1), others={("w_other", 1): 6}, since=11),
    Case("Concat", "across", joined((2, 3, 8), 2, 1), others={("w_other", 1): 8}),
    Case("Concat", "across-locked", joined((2, 3, 8), 1, 1), units=0, why="graph input"),
    Case("Concat", "constant", joined_to_constant, since=11),
    Case("Concat", "input", joined_to_input, units=0, why="graph input 'token'"),
    Case("Concat", "itself", joined_with_itself),
    Case("Expand", "other-axis", expand(2, 3, 8), (2, 1, 8), 2, 2),
    Case("Expand", "short-target", expand(4, 1), (2, 1, 8), 2, 2),
    Case("Expand", "more-axes", expand(3, 2, 5, 8), out=3),
    Case("Expand", "ones", expand(1, 1, 1)),
    Case("Expand", "computed", expand_computed, (2, 1, 8), 2, 2),
    Case("Expand", "made", expand_made),
    Case("Tile", "along", tile(1, 1, 2)),
    Case("Tile", "across", tile(2, 3, 1)),
    Case("Tile", "made", tile(1, 1, 4), (2, 8, 1), 1, 1),
    Case("DepthToSpace", "default", plain("DepthToSpace", blocksize=2), (2, 24, 3, 3), 1, 1, units=6),
    Case("DepthToSpace", "dcr", plain("DepthToSpace", blocksize=2, mode="DCR"), (2, 24, 3, 3), 1, 1, units=6, since=11),
    Case("DepthToSpace", "crd", plain("DepthToSpace", blocksize=2, mode="CRD"), (2, 24, 3, 3), 1, 1, units=6, since=11),
    Case("DepthToSpace", "pixels", plain("DepthToSpace", blocksize=2), (2, 4, 3, 8), 3, 3, units=0, why="pixels"),
    Case("SpaceToDepth", "", plain("SpaceToDepth", blocksize=2), IMAGE, 1, 1),
    Case("SpaceToDepth", "pixels", plain("SpaceToDepth", blocksize=2), IMAGE, 2, 1, units=0, why="pixels"),
    Case("ConstantOfShape", "", constant_of_shape),
    Case("ConstantOfShape", "computed", constant_of_shape_computed),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_layout(case: Case, version: int) -> None:
    check_case(case, version)


def case_of(name: str) -> Case:
    return next(c for c in CASES if str(c) == name)


def test_rows_lose_different_positions() -> None:
    """A split that is merged again: the positions that go are chosen in every row."""
    proto = build(case_of("Reshape-round-trip"), 17).proto()
    outcome = prune(proto)
    kept = outcome.plan.masks(proto)["w_in"][0].reshape(4, 6)
    assert kept.sum(axis=1).tolist() == [3, 3, 3, 3]
    assert len({tuple(row) for row in kept}) > 1
    weight = array_of(proto, "w_in")
    norms = np.square(weight).sum(0) + np.square(array_of(proto, "w_out")).sum(1)
    for row, scores in zip(kept, norms.reshape(4, 6), strict=True):
        assert set(np.flatnonzero(~row)) == set(np.argsort(scores)[:3])


def test_head_dims_go_within_every_head() -> None:
    proto = build(case_of("Reshape-heads"), 17).proto()
    outcome = prune(proto, head_dims=True)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert (group.kind, group.units) == ("head dim", 6)
    kept = outcome.plan.masks(proto)["w_in"][0].reshape(4, 6)
    assert kept.sum(axis=1).tolist() == [3, 3, 3, 3]


def test_heads_go_whole() -> None:
    proto = build(case_of("Reshape-heads"), 17).proto()
    outcome = prune(proto)
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert (group.kind, group.units) == ("head", 4)
    kept = outcome.plan.masks(proto)["w_in"][0].reshape(4, 6)
    assert sorted(kept.sum(axis=1).tolist()) == [0, 0, 6, 6]


def dynamic(op: str) -> Net:
    """A Reshape or Expand whose target holds a batch size that only the run knows."""
    net = Net(17)
    x = net.input(["batch", 5, 3], "x")
    made = net.add("MatMul", x, net.weight(3, 24, name="w_in"))
    shape = net.add("Shape", made)
    batch = net.add("Slice", shape, net.ints(0), net.ints(1))
    if op == "Reshape":
        made = net.add("Reshape", made, net.add("Concat", batch, net.ints(5, 4, 6), axis=0))
        made = net.add("Reshape", net.add("Relu", made), net.add("Concat", batch, net.ints(5, 24), axis=0))
    else:
        bias = net.weight(1, 1, 24, name="bias")
        made = net.add("Add", made, net.add("Expand", bias, net.add("Concat", batch, net.ints(1, 24), axis=0)))
    net.read(made, 2)
    net.outputs[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    return net


@pytest.mark.parametrize(("op", "units"), [("Reshape", 6), ("Expand", 24)])
def test_targets_that_hold_a_dynamic_batch(op: str, units: int) -> None:
    proto = dynamic(op).proto()
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert group.units == units
    assert shapes_of(outcome.model)["w_in"] == (3, 12)
    for batch in (1, 7):
        feeds = {"x": np.random.default_rng(batch).standard_normal((batch, 5, 3)).astype(np.float32)}
        assert next(iter(run(outcome.model, feeds=feeds).values())).shape[0] == batch


def test_expanding_a_token_over_a_dynamic_batch() -> None:
    """The batch axis that Expand makes is no label; the width is tied to the stream."""
    net = Net(17)
    made = net.add("MatMul", net.input(["batch", 5, 8], "x"), net.weight(8, 8, name="w_in"))
    batch = net.add("Slice", net.add("Shape", made), net.ints(0), net.ints(1))
    token = net.add("Expand", net.weight(1, 5, 8, name="token"), net.add("Concat", batch, net.ints(5, 8), axis=0))
    net.read(net.add("Add", made, token), 2)
    net.outputs[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "token", 2)
    assert group is not None
    assert group.units == 8
    assert group is group_of(outcome.groups, "w_in", 1)


def above(net: Net, n: str) -> str:
    return net.add("Where", net.add("Greater", n, net.ints(50)), net.ints(4), net.ints(3))


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        (["batch", 6, 2], (2, 6, "batch")),  # the same axes at a batch of 2 alone
        (["batch", 12], ("batch", -1, "above")),
        (["batch", 12], (3, "batch", 4)),
        (["batch", 12], ("above", "batch", -1)),
    ],
)
def test_axes_that_match_at_some_sizes_only_must_stay(shape: list[int | str], target: tuple[int | str, ...]) -> None:
    net = Net()
    x = net.input(["batch", 3])
    n = net.add("Slice", net.add("Shape", x), net.ints(0), net.ints(1))
    parts = {"batch": n, "half": net.add("Div", n, net.ints(2)), "above": above(net, n)}
    rest = [s for s in shape if isinstance(s, int)]
    y = net.add("Relu", net.add("MatMul", x, net.weight(3, int(np.prod(rest)), name="w_in")))
    y = net.add("Reshape", y, net.ints(-1, *rest))
    wanted = net.add("Concat", *(parts[t] if isinstance(t, str) else net.ints(t) for t in target), axis=0)
    y = net.add("ReduceMax", net.add("Reshape", y, wanted), axes=[0, 2], keepdims=0)
    net.output(net.add("Reshape", y, net.ints(-1)), ["any"])
    groups = trace(load(net.proto(), check=False))
    assert group_of(groups, "w_in", 1) is None
    assert any("sizes that the run alone knows" in r for r in reasons_for(groups, "w_in", 1))


def test_group_norms_of_large_maps_let_channels_through() -> None:
    """Exporters write them as a Reshape that joins channels with all positions: more than any weight here has."""
    net = Net()
    x = net.input([1, 3, 224, 224])
    y = net.add("Conv", x, net.weight(64, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    grouped = net.add("InstanceNormalization", net.add("Reshape", y, net.ints(0, 8, -1)), net.weight(8), net.weight(8))
    y = net.add("Relu", net.add("Reshape", grouped, net.ints(1, 64, 112, 112)))
    y = net.add("Conv", y, net.weight(16, 64, 3, 3), pads=[1, 1, 1, 1])
    net.output(net.add("GlobalAveragePool", y))
    outcome = prune(net.proto())
    assert [group.units for group in outcome.groups.groups] == [8]
    assert outcome.verdict is not None and outcome.verdict.ok
    assert outcome.after.params < 0.6 * outcome.before.params


@pytest.mark.parametrize("between", [None, "Mul"])
def test_an_axis_stays_that_is_expanded_to_a_size_that_is_given_at_run_time(between: str | None) -> None:
    """The size may be that of the axis, or 1: nothing says which, so no number can stand for it."""
    net = Net()
    x = net.add("Conv", net.input([2, 4, 5, 5]), net.weight(6, 4, 1, 1, name="first"))
    target = net.input([4], "target", TensorProto.INT64)
    target = target if between is None else net.add(between, target, net.ints(1, 1, 1, 1))
    read = net.add("Conv", net.add("Expand", x, target), net.weight(3, 6, 1, 1))
    groups = trace(load(net.proto([helper.make_tensor_value_info(read, TensorProto.FLOAT, None)])))
    assert not groups.groups
    assert any(b.reason == EXPANDED for b in groups.barriers)


def test_an_axis_goes_that_is_expanded_to_the_shape_of_another_tensor() -> None:
    net = Net()
    x = net.add("Conv", net.input([2, 4, 5, 5]), net.weight(6, 4, 1, 1, name="first"))
    read = net.add("Conv", net.add("Expand", x, net.add("Shape", x)), net.weight(3, 6, 1, 1))
    net.output(read)
    assert [group.name for group in trace(net.model()).groups] == ["first"]
