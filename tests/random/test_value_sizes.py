"""Sizes that depend on values: channels go as before, and only what needs the unknown length stays whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given

from onnxprune import api
from onnxprune.model import load, to_proto
from onnxprune.model.shapes.infer import infer
from onnxprune.model.shapes.stand_ins import STAND_IN
from tests.graphs.net import BOOL, FLOAT, INT64, Net, array_of, group_of, prune, run, with_arrays
from tests.graphs.random_rows import ROWS, selected
from tests.random.test_graphs import LONG, quick

Built = tuple[onnx.ModelProto, int]
CASES: list[Callable[[], onnx.ModelProto]] = []


def case(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    CASES.append(build)
    return build


def begun(shape: tuple[object, ...] = (10, 6)) -> tuple[Net, str]:
    """A layer of 16 channels on rows."""
    net = Net(17, seed=3)
    return net, net.add("Relu", net.add("MatMul", net.input(list(shape)), net.weight(6, 16, name="first")))


def ended(net: Net, rows: str, rank: int = 2) -> onnx.ModelProto:
    """Two more layers."""
    made = net.add("Relu", net.add("MatMul", rows, net.weight(16, 12, name="second")))
    net.output(
        net.add("MatMul", made, net.weight(12, 3, name="third")), [f"d{a}" for a in range(rank - 1)] + [3], FLOAT
    )
    return net.proto()


def score(net: Net, rows: str) -> str:
    return net.add("ReduceSum", rows, net.ints(1), keepdims=0)


def mask(net: Net, rows: str) -> str:
    return net.add("Greater", score(net, rows), net.const(np.float32(2)))


def count(net: Net, rows: str) -> str:
    """How many rows are large."""
    return net.add("ReduceSum", net.cast(mask(net, rows), INT64), net.ints(0), keepdims=1)


def scalar(net: Net, value: int) -> str:
    return net.const(np.array(value, np.int64))


@case
def rows_by_nonzero() -> onnx.ModelProto:
    net, rows = begun()
    return ended(net, net.add("Gather", rows, net.add("Squeeze", net.add("NonZero", mask(net, rows)), net.ints(0))))


@case
def rows_by_gather_nd() -> onnx.ModelProto:
    net, rows = begun()
    places = net.add("Transpose", net.add("NonZero", mask(net, rows)), perm=[1, 0])
    return ended(net, net.add("GatherND", rows, places))


@case
def rows_by_compress() -> onnx.ModelProto:
    net, rows = begun()
    return ended(net, net.add("Compress", rows, mask(net, rows), axis=0))


@case
def rows_by_unique() -> onnx.ModelProto:
    net, rows = begun()
    whole = net.cast(net.add("Floor", score(net, rows)), INT64)
    return ended(net, net.add("Gather", rows, net.add("Unique", whole, outputs=2, axis=0)[1]))


@case
def rows_by_computed_k() -> onnx.ModelProto:
    net, rows = begun()
    return ended(net, net.add("Gather", rows, net.add("TopK", score(net, rows), count(net, rows), outputs=2)[1]))


@case
def rows_by_a_computed_end() -> onnx.ModelProto:
    net, rows = begun()
    return ended(net, net.add("Slice", rows, net.ints(0), count(net, rows), net.ints(0)))


@case
def rows_by_suppression() -> onnx.ModelProto:
    net, rows = begun()
    boxes = net.add("Unsqueeze", net.add("MatMul", rows, net.weight(16, 4)), net.ints(0))
    scores = net.add("Transpose", net.add("Sigmoid", net.add("MatMul", rows, net.weight(16, 2))), perm=[1, 0])
    half = net.const(np.array([0.5], np.float32))
    kept = net.add("NonMaxSuppression", boxes, net.add("Unsqueeze", scores, net.ints(0)), scalar(net, 4), half)
    places = net.add("Squeeze", net.add("Slice", kept, net.ints(2), net.ints(3), net.ints(1)), net.ints(1))
    return ended(net, net.add("Gather", rows, places))


@case
def rows_of_a_triangle() -> onnx.ModelProto:
    net, rows = begun()
    size = net.add("Gather", net.add("Shape", rows), net.ints(0))
    ones = onnx.helper.make_tensor("value", FLOAT, [1], [1.0])
    square = net.add("ConstantOfShape", net.add("Concat", size, size, axis=0), value=ones)
    places = net.add("NonZero", net.add("Trilu", square, upper=0))
    return ended(net, net.add("Gather", rows, net.add("Gather", places, scalar(net, 1), axis=0)))


@case
def rows_up_to_the_longest() -> onnx.ModelProto:
    net, rows = begun()
    longest = net.add("ReduceMax", net.input([4], "lens", dtype=INT64), keepdims=0)
    return ended(net, net.add("Gather", rows, net.add("Range", scalar(net, 0), longest, scalar(net, 1))))


@case
def heads_over_selected_rows() -> onnx.ModelProto:
    net, rows = begun()
    some = net.add("Compress", rows, mask(net, rows), axis=0)
    parts = [
        net.add(
            "Transpose", net.add("Reshape", net.add("MatMul", some, net.weight(16, 16)), net.ints(-1, 4, 4)), perm=order
        )
        for order in ([1, 0, 2], [1, 2, 0], [1, 0, 2])
    ]
    weights = net.add("Softmax", net.add("MatMul", *parts[:2]), axis=-1)
    joined = net.add("Transpose", net.add("MatMul", weights, parts[2]), perm=[1, 0, 2])
    return ended(net, net.add("Reshape", joined, net.ints(-1, 16)))


@case
def rows_laid_out_by_batch() -> onnx.ModelProto:
    """As masked autoencoders do: equally many rows of every sample."""
    net, rows = begun(("b", 10, 6))
    places = net.add("Transpose", net.add("NonZero", net.input(["b", 10], "mask", dtype=BOOL)), perm=[1, 0])
    batch = net.add("Gather", net.add("Shape", rows), net.ints(0))
    target = net.add("Concat", batch, net.ints(-1, 16), axis=0)
    return ended(net, net.add("Reshape", net.add("GatherND", rows, places), target), 3)


def counted(kind: str) -> Callable[[], onnx.ModelProto]:
    """The rows, as many as an input says."""

    def build() -> onnx.ModelProto:
        net, rows = begun()
        number = net.input([1], "k", dtype=INT64)
        if kind == "expand":
            return ended(net, net.add("Expand", rows, net.add("Concat", number, net.ints(1, 1), axis=0)), 3)
        if kind == "tile":
            return ended(net, net.add("Tile", rows, net.add("Concat", number, net.ints(1), axis=0)))
        if kind == "pad":
            return ended(net, net.add("Pad", rows, net.add("Concat", number, net.ints(0, 0, 0), axis=0)))
        if kind == "split":
            sizes = net.add("Concat", number, net.add("Sub", net.ints(10), number), axis=0)
            first, second = net.add("Split", rows, sizes, outputs=2, axis=0)
            return ended(net, net.add("Concat", second, first, axis=0))
        zeros = net.add("ConstantOfShape", net.add("Concat", number, net.ints(16), axis=0))
        return ended(net, net.add("Concat", rows, zeros, axis=0))

    build.__name__ = f"counted_{kind}"
    return build


CASES += [counted(kind) for kind in ("expand", "tile", "pad", "split", "fill")]


def fed(proto: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Inputs whose lengths, counts and masks differ from run to run; equally many rows of every sample."""
    rng, feeds = np.random.default_rng(seed), {}
    stored = {t.name for t in proto.graph.initializer}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or 2 for d in kind.shape.dim]
        if value.name in stored:
            continue
        if kind.elem_type == BOOL:
            feeds[value.name] = np.broadcast_to(rng.permutation(shape[-1]) < 4, shape).copy()
        elif kind.elem_type == INT64:
            feeds[value.name] = rng.integers(1, 6, shape)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def judged(proto: onnx.ModelProto) -> api.Outcome:
    """What `prune` makes is proven, and equals the original whose removed weights are zero, whatever the lengths."""
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    if not all(step.exact for step in outcome.plan.steps):  # a norm over what remains: the proof alone judges
        return outcome
    kept = outcome.plan.masks(proto)
    zeroed = with_arrays(proto, {name: (array_of(proto, name) * m).astype("f") for name, m in kept.items()})
    for seed in range(4):
        feeds = fed(proto, seed)
        wanted = run(zeroed, feeds=feeds)
        for name, found in run(to_proto(outcome.model), feeds=feeds).items():
            np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-5)
    return outcome


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_channels_go_and_rows_stay(build: Callable[[], onnx.ModelProto]) -> None:
    groups = judged(build()).groups
    first, second = group_of(groups, "first", 1), group_of(groups, "second", 1)
    assert first is not None and second is not None
    assert (first.units, second.units) == (16, 12)


def test_a_stand_in_is_never_static() -> None:
    """A layer whose width is that of the stand-in: nothing is tied that only the number has in common."""
    net = Net(17)
    rows = net.add("MatMul", net.input([STAND_IN, 6]), net.weight(6, STAND_IN, name="w"))
    some = net.add("Compress", rows, net.input([STAND_IN], "mask", dtype=BOOL), axis=0)
    turned = net.add("Transpose", some, perm=[1, 0])
    net.output(net.add("MatMul", some, net.weight(STAND_IN, 3)), ["k", 3], FLOAT)
    static = infer(load(net.proto()))
    assert static.shapes[some] == (STAND_IN, STAND_IN)
    assert static.dynamic[some] == {0}
    assert static.dynamic[turned] == {1}
    group = group_of(api.trace(net.proto()), "w", 1)
    assert group is not None and group.units == STAND_IN


def test_an_unknown_axis_broadcasts_against_any_other() -> None:
    net = Net()
    ids = net.input([3], "lens", dtype=INT64)
    steps = net.add("Range", scalar(net, 0), net.add("ReduceMax", ids, keepdims=0), scalar(net, 1))
    late = net.add("GreaterOrEqual", steps, net.add("Unsqueeze", ids, net.ints(1)))
    made = net.add("Where", late, net.const(np.float32(0)), net.input([3, 7]))
    other = net.add("Add", net.input([5, "t"]), net.cast(steps, FLOAT))
    net.output(made, [3, 7], FLOAT)
    net.output(other, [5, "t"], FLOAT)
    static = infer(load(net.proto(), check=False))
    assert static.shapes[late] == (3, STAND_IN)
    assert static.shapes[made] == (3, 7)
    assert made not in static.dims
    assert static.dynamic[other] == {1}


def test_sizes_that_cannot_be_one_number() -> None:
    """Where the stand-ins leave nothing of an axis, or too little, the axis still has a rank and a channel axis."""
    net = Net()
    x = net.input([1, 8, 40])
    start, end = (net.input([1], name, dtype=INT64) for name in ("start", "end"))
    part = net.add("Slice", x, start, end, net.ints(2))
    made = net.add("Conv", part, net.weight(5, 8, 30))
    net.output(made, [1, 5, "t"], FLOAT)
    static = infer(load(net.proto(), check=False))
    assert static.shapes[part][:2] == (1, 8) and static.shapes[part][2] > 1
    assert static.shapes[made][:2] == (1, 5) and static.shapes[made][2] > 1
    assert static.dynamic[made] == {2}


def test_random_rows() -> None:
    @quick(40)
    @given(selected())
    def one(proto: onnx.ModelProto) -> None:
        judged(proto)

    one()


@pytest.mark.long
def test_many_rows() -> None:
    @quick(LONG // 4)
    @given(selected())
    def one(proto: onnx.ModelProto) -> None:
        judged(proto)

    one()


def test_every_way_to_select_rows_is_drawn() -> None:
    assert {"nonzero", "compress", "topk", "range", "nms"} <= set(ROWS)
