"""Labels through operators that pick positions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs.net import INT64, Net, group_of, groups_of, ops_of, prune, run, shapes_of
from tests.graphs.sandwich import Case, build, check_case, parameters

END = np.iinfo(np.int64).max
COMPUTED = "index computed at run time"
TABLE = "indexed by a table"


def sliced(starts: list[int], ends: list[int], axes: list[int] | None = None, steps: list[int] | None = None):
    def build(net: Net, x: str) -> str:
        if net.opset < 10:
            return net.add("Slice", x, starts=starts, ends=ends, axes=axes)
        given = [net.ints(*starts), net.ints(*ends)]
        if axes is not None:
            given.append(net.ints(*axes))
        if steps is not None:
            given.append(net.ints(*steps))
        return net.add("Slice", x, *given)

    return build


def sliced_computed(axis: int):
    """Bounds that only the run knows."""

    def build(net: Net, x: str) -> str:
        end = net.add("Add", net.add("Div", net.input([1], "flag", dtype=INT64), net.ints(1000)), net.ints(3))
        return net.add("Slice", x, net.ints(0), end, net.ints(axis))

    return build


def rotary(net: Net, x: str) -> str:
    """The halves of an axis, turned and joined again."""
    first = sliced([0], [4], [2])(net, x)
    second = sliced([4], [END], [2])(net, x)
    turned = net.add("Concat", net.add("Neg", second), first, axis=2)
    return net.add(
        "Add", net.add("Mul", x, net.weight(8, name="cos")), net.add("Mul", turned, net.weight(8, name="sin"))
    )


def interleaved(net: Net, x: str) -> str:
    even = net.add("Slice", x, net.ints(0), net.ints(END), net.ints(2), net.ints(2))
    odd = net.add("Slice", x, net.ints(1), net.ints(END), net.ints(2), net.ints(2))
    return net.add("Mul", even, odd)


def sliced_by_computed_steps(net: Net, x: str) -> str:
    step = net.add("Add", net.add("Div", net.input([1], "flag", dtype=INT64), net.ints(1000)), net.ints(2))
    return net.add("Slice", x, net.ints(0), net.ints(END), net.ints(2), step)


def sliced_twice(net: Net, x: str) -> str:
    """Two axes at once, and what remains of each lies at no constant step."""
    return net.add("Slice", x, net.ints(0, 0), net.ints(END, END), net.ints(1, 2), net.ints(2, 2))


def split(sizes: list[int] | None, outputs: int, axis: int | None = 2, op: str = "Mul", num_outputs: bool = False):
    def build(net: Net, x: str) -> str:
        given, attrs = [x], {"axis": axis}
        if sizes is not None and net.opset < 13:
            attrs["split"] = sizes
        elif sizes is not None:
            given.append(net.ints(*sizes))
        elif net.opset >= 18:
            attrs["num_outputs"] = outputs
        parts = net.add("Split", *given, outputs=outputs, **attrs)
        made = parts[0]
        for part in parts[1:]:
            made = net.add(op, made, part) if op != "Concat" else made
        return net.add("Concat", *parts, axis=axis) if op == "Concat" else made

    return build


def split_across(net: Net, x: str) -> list[str]:
    return split_parts(net, x, [2, 3], 1)


def split_parts(net: Net, x: str, sizes: list[int], axis: int) -> list[str]:
    if net.opset < 13:
        return net.add("Split", x, outputs=len(sizes), axis=axis, split=sizes)
    return net.add("Split", x, net.ints(*sizes), outputs=len(sizes), axis=axis)


def split_computed(axis: int):
    """Parts whose sizes only the run knows; what is joined again is as long as before."""

    def build(net: Net, x: str) -> str:
        flag = net.add("Div", net.input([1], "flag", dtype=INT64), net.ints(1000))
        length = {1: 5, 2: 8}[axis]
        first = net.add("Add", flag, net.ints(3))
        sizes = net.add("Concat", first, net.add("Sub", net.ints(length), first), axis=0)
        one, other = net.add("Split", x, sizes, outputs=2, axis=axis)
        return net.add("Concat", other, one, axis=axis)

    return build


def gather(index, axis: int, dtype=np.int64):
    def build(net: Net, x: str) -> str:
        return net.add("Gather", x, net.const(np.array(index, dtype)), axis=axis)

    return build


def compress(axis: int, kept: list[int]):
    def build(net: Net, x: str) -> str:
        return net.add("Compress", x, net.const(np.array(kept, bool)), axis=axis)

    return build


def gather_computed(axis: int):
    def build(net: Net, x: str) -> str:
        return net.add("Gather", x, net.input([3], "ids", dtype=INT64), axis=axis)

    return build


def table(net: Net, x: str) -> str:
    """Rows of an embedding table are looked up, and added to the stream."""
    ids = net.input([2, 5], "ids", dtype=INT64)
    return net.add("Add", x, net.add("Gather", net.weight(11, 8, name="table"), ids))


def packed(net: Net, x: str) -> str:
    """Three tensors, packed into one projection and taken out by scalars."""
    parts = [gather(i, 0)(net, x) for i in range(3)]
    return net.add("Add", net.add("Mul", parts[0], parts[1]), parts[2])


def gather_elements(shape: tuple[int, ...], axis: int):
    def build(net: Net, x: str) -> str:
        index = net.rng.integers(0, 2, shape)
        return net.add("GatherElements", x, net.const(index), axis=axis)

    return build


def gather_nd(index, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add("GatherND", x, net.const(np.array(index, np.int64)), **attrs)

    return build


def scatter(op: str, shape: tuple[int, ...], axis: int, **attrs):
    def build(net: Net, x: str) -> str:
        rows = np.arange(shape[axis])
        index = np.broadcast_to(np.expand_dims(rows, [a for a in range(len(shape)) if a != axis]), shape)
        updates = net.weight(*shape, name="c_updates")
        return net.add(op, x, net.const(np.array(index)), updates, axis=axis, **attrs)

    return build


def scatter_nd(index, updates: tuple[int, ...], **attrs):
    def build(net: Net, x: str) -> str:
        return net.add("ScatterND", x, net.const(np.array(index, np.int64)), net.weight(*updates, name="c_up"), **attrs)

    return build


def block(*axes: int | range, order: tuple[int, ...] | None = None) -> np.ndarray:
    """The coordinates of a block, listed in the order of its axes (or another)."""
    grid = np.stack(np.meshgrid(*(np.atleast_1d(a) for a in axes), indexing="ij"), -1)
    return grid if order is None else grid.transpose(*order, grid.ndim - 1)


def scatter_blocks(index: np.ndarray, size: int, axis: int, *, swapped: bool = False, **attrs):
    """A block is written into an activation or (swapped) into a constant; it is a layer's output, `w_up`."""

    def build(net, x):
        base = net.weight(*net.probe(x).shape, name="c_base") if swapped else x
        shape = [*index.shape[:-1], *net.probe(x).shape[index.shape[-1] :]]
        assert shape[axis] == size
        updates = x if swapped else net.make(shape, axis, weight="w_up")
        return net.add("ScatterND", base, net.const(index.astype(np.int64)), updates, **attrs)

    return build


def scatter_along(index: np.ndarray, size: int, **attrs):
    def build(net, x):
        updates = net.make(index.shape, 2, weight="w_up")
        assert index.shape[2] == size
        return net.add("ScatterElements", x, net.const(index.astype(np.int64)), updates, axis=-1, **attrs)

    return build


UP = {"others": {("w_up", 1): 8}}
BATCH, CHANNELS = range(2), range(8)
ALONG = np.broadcast_to(np.arange(8), (2, 3, 8))


def scatter_nd_activation(net: Net, x: str) -> str:
    """The updates carry the labels."""
    base = net.weight(2, 6, 8, name="c_base")
    updates = net.add("Reshape", x, net.ints(10, 8))
    index = [[i, j] for i in range(2) for j in range(5)]
    return net.add("ScatterND", base, net.const(np.array(index, np.int64)), updates)


def pad(pads: list[int], mode: str | None = None, value: float | None = None, axes: list[int] | None = None):
    def build(net: Net, x: str) -> str:
        if net.opset < 11:
            return net.add("Pad", x, pads=pads, mode=mode, value=value)
        given = [net.ints(*pads)]
        if value is not None or axes is not None:
            given.append(net.const(np.float32(value or 0)))
        if axes is not None:
            given.append(net.ints(*axes))
        return net.add("Pad", x, *given, mode=mode)

    return build


def pad_computed(net: Net, x: str) -> str:
    zero = net.add("Div", net.input([6], "pads", dtype=INT64), net.ints(1000))
    return net.add("Pad", x, zero)


LOCKED_PAD = {"units": 0, "why": "padded with neighbours or cropped"}
MODES = ("reflect", "edge")

CASES = [
    Case("Slice", "across", sliced([1], [4], [1])),
    Case("Slice", "negative-across", sliced([-3], [-1], [-2]), since=10),
    Case("Slice", "no-axes", sliced([0, 1], [2, END])),
    Case("Slice", "part", sliced([2], [8], [2]), units=6),
    Case("Slice", "tail", sliced([-5], [END], [2]), units=5),
    Case("Slice", "all", sliced([0], [END], [2])),
    Case("Slice", "two-axes", sliced([1, 2], [4, 7], [1, 2]), units=5),
    Case("Slice", "every-other", sliced([1], [END], [2], [2]), units=4, since=10),
    Case("Slice", "every-third", sliced([0], [8], [2], [3]), units=3, since=10),
    Case("Slice", "backwards", sliced([-1], [-END], [2], [-1]), since=10),
    Case("Slice", "backwards-part", sliced([6], [0], [2], [-2]), units=3, since=10),
    Case("Slice", "backwards-across", sliced([-1], [-END], [1], [-1]), since=10),
    Case("Slice", "empty-names", sliced([1], [4], [1], [1]), since=10),
    Case("Slice", "rotary", rotary, units=4, others={("cos", 0): 4, ("sin", 0): 4}),
    Case("Slice", "interleaved", interleaved, units=4, since=10),
    Case("Slice", "computed", sliced_computed(2), units=0, why="index computed at run time", since=10),
    Case("Slice", "computed-steps", sliced_by_computed_steps, units=0, why="index computed at run time", since=10),
    Case("Slice", "twice", sliced_twice, (2, 5, 9), since=10, units=5),
    Case("Slice", "computed-across", sliced_computed(1), since=10),
    Case("Split", "halves", split(None, 2), units=4),
    Case("Split", "explicit", split([4, 4], 2), units=4),
    Case("Split", "thirds", split(None, 3), (2, 5, 12), units=4),
    Case("Split", "uneven", split([3, 5], 2, op="Concat")),
    Case("Split", "uneven-count", split(None, 3, op="Concat"), since=18),
    Case("Split", "negative-axis", split([4, 4], 2, axis=-1), units=4, since=11),
    Case("Split", "default-axis", split(None, 2, axis=None), (2, 5, 8)),
    Case("Split", "across", split_across, units=8),
    Case("Split", "computed", split_computed(2), units=0, why="index computed at run time", since=13),
    Case("Split", "computed-across", split_computed(1), since=13),
    Case("Gather", "scalar-across", gather(2, 1), out=1),
    Case("Gather", "list-across", gather([2, 0, 2], 1)),
    Case("Gather", "table-across", gather([[0, 1], [3, 2]], 1), out=3),
    Case("Gather", "permuted", gather([3, 1, 7, 0, 5, 2, 6, 4], 2)),
    Case("Gather", "part", gather([5, 1, 2], 2), units=3),
    Case("Gather", "repeated", gather([5, 1, 5, 2], 2), units=3),
    Case("Gather", "negative", gather([-1, 0, -3], 2), units=3, since=11),
    Case("Gather", "int32", gather([5, 1, 2], -1, np.int32), units=3),
    Case("Gather", "computed", gather_computed(2), units=0, why=COMPUTED),
    Case("Gather", "computed-across", gather_computed(1)),
    Case("Gather", "computed-front", gather_computed(0)),
    Case("Gather", "table", gather([[0, 1], [3, 2]], 2), out=3, units=0, why="indexed by a table"),
    Case("Gather", "embedding", table, others={("table", 1): 8}),
    Case("Gather", "packed", packed, (3, 5, 8), 2, 1),
    Case("GatherElements", "across", gather_elements((2, 4, 8), 1)),
    Case("GatherElements", "along", gather_elements((2, 5, 8), 2), units=0, why=TABLE),
    Case("GatherElements", "along-part", gather_elements((2, 5, 3), 2), units=0, why="indexed in part"),
    Case("GatherElements", "part", gather_elements((2, 3, 6), 1), units=0, why="indexed in part"),
    Case("GatherND", "rows", gather_nd([[0, 1], [1, 4], [0, 0]]), out=1),
    Case("GatherND", "front", gather_nd([[1], [0]]), out=2),
    Case("GatherND", "batched", gather_nd([[[1], [0]], [[4], [2]]], batch_dims=1), since=12),
    Case("GatherND", "whole", gather_nd([[0, 1, 2], [1, 1, 7]]), out=0, units=0, why=TABLE),
    Case("Scatter", "across", scatter("Scatter", (2, 3, 8), 1), until=10),
    Case("ScatterElements", "across", scatter("ScatterElements", (2, 3, 8), 1)),
    Case("ScatterElements", "add", scatter("ScatterElements", (2, 3, 8), 1, reduction="add"), since=16),
    Case("ScatterElements", "max", scatter("ScatterElements", (2, 3, 8), 1, reduction="max"), since=18),
    Case("ScatterElements", "along", scatter("ScatterElements", (2, 5, 8), 2), others={("c_updates", 2): 8}),
    Case("ScatterElements", "along-part", scatter("ScatterElements", (2, 5, 3), 2), units=0, why="indexed in part"),
    Case("ScatterElements", "part", scatter("ScatterElements", (2, 3, 6), 1), units=0, why="indexed in part"),
    Case("ScatterND", "rows", scatter_nd([[0, 1], [1, 4]], (2, 8))),
    Case("ScatterND", "add", scatter_nd([[0, 1], [1, 4], [0, 1]], (3, 8), reduction="add"), since=16),
    Case("ScatterND", "front", scatter_nd([[1]], (1, 5, 8))),
    Case("ScatterND", "updates", scatter_nd_activation),
    Case("ScatterND", "block", scatter_blocks(block(BATCH, range(1, 4), CHANNELS), 8, 2), **UP),
    Case("ScatterND", "one-row", scatter_blocks(block(1, 4, CHANNELS), 8, 2), **UP),
    Case("ScatterND", "back", scatter_blocks(block(-1, [-2, 0], range(-8, 0)), 8, 2), **UP),
    Case("ScatterND", "turned", scatter_blocks(block(BATCH, range(1, 4), CHANNELS, order=(2, 0, 1)), 8, 0), **UP),
    Case(
        "ScatterND",
        "all",
        scatter_blocks(block(BATCH, range(5), CHANNELS), 8, 2, swapped=True),
        others={("c_base", 2): 8},
    ),
    Case("ScatterND", "sum", scatter_blocks(block(0, [1, 3], CHANNELS), 8, 2, reduction="add"), since=16, **UP),
    Case(
        *("ScatterND", "middle", scatter_blocks(block(BATCH, CHANNELS), 8, 1)),
        shape=(2, 8, 5),
        axis=1,
        out=1,
        others={("w_up", 1): 8},
    ),
    Case("ScatterND", "mixed-up", scatter_blocks(block(0, 1, [1, 0, *range(2, 8)]), 8, 2), units=0, why=COMPUTED),
    Case("ScatterND", "some", scatter_blocks(block(0, 1, range(6)), 6, 2), units=0, why=COMPUTED),
    Case(
        *("ScatterND", "diagonal", scatter_blocks(np.stack([np.arange(8)] * 2, -1), 8, 0)),
        shape=(8, 8, 2),
        axis=0,
        out=0,
        units=0,
        why=COMPUTED,
    ),
    Case("ScatterElements", "through", scatter_along(ALONG, 8), **UP),
    Case("ScatterElements", "through-back", scatter_along(ALONG - 8, 8), since=11, **UP),
    Case("ScatterElements", "through-sum", scatter_along(ALONG, 8, reduction="add"), since=16, **UP),
    Case("ScatterElements", "backwards", scatter_along(7 - ALONG, 8), units=0, why=TABLE),
    Case("ScatterND", "whole", scatter_nd([[0, 1, 2]], (1,)), units=0, why=COMPUTED),
    Case("Pad", "across", pad([0, 1, 0, 0, 2, 0])),
    Case("Pad", "value-across", pad([0, 1, 0, 0, 2, 0], value=0.7)),
    Case("Pad", "along", pad([0, 0, 2, 0, 0, 1])),
    Case("Pad", "value-along", pad([0, 0, 2, 0, 0, 1], value=1.5)),
    Case("Pad", "cropped-across", pad([0, -1, 0, 0, -1, 0])),
    Case("Pad", "cropped-along", pad([0, 0, -1, 0, 0, 0]), **LOCKED_PAD),
    *(Case("Pad", f"{mode}-across", pad([0, 1, 0, 0, 2, 0], mode)) for mode in MODES),
    *(Case("Pad", f"{mode}-along", pad([0, 0, 1, 0, 0, 1], mode), **LOCKED_PAD) for mode in MODES),
    Case("Pad", "wrap-across", pad([0, 1, 0, 0, 2, 0], "wrap"), since=19),
    Case("Pad", "wrap-along", pad([0, 0, 1, 0, 0, 2], "wrap"), since=19, **LOCKED_PAD),
    Case("Pad", "axes", pad([1, 2], axes=[-2]), since=18),
    Case("Pad", "axes-along", pad([1, 2], axes=[2]), since=18),
    Case("Compress", "across", compress(1, [1, 0, 1, 1, 0]), since=11),
    # Its first definition has no shape function.
    Case("Compress", "unshaped", compress(1, [1, 0, 1, 1, 0]), units=0, why="no shape is known", until=10),
    Case("Pad", "none", pad([0] * 6, "reflect")),
    Case("Pad", "computed", pad_computed, units=0, why="computed at run time", since=11),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_index(case: Case, version: int) -> None:
    check_case(case, version)


def case_of(name: str) -> Case:
    return next(c for c in CASES if str(c) == name)


def test_parts_of_a_split_are_groups_of_their_own() -> None:
    for opset in (11, 13, 18):
        net = Net(opset)
        x = net.make((2, 5, 8), 2)
        for index, part in enumerate(split_parts(net, x, [5, 3], 2)):
            net.read(part, 2, weight=f"w_out{index}")
        outcome = prune(net.proto())
        assert outcome.verdict is not None
        assert outcome.verdict.ok, outcome.verdict.problem
        assert {g.units for g in groups_of(outcome.groups, "w_in", 1)} == {3, 5}
        shapes = shapes_of(outcome.model)
        assert (shapes["w_in"], shapes["w_out0"], shapes["w_out1"]) == ((3, 5), (3, 4), (2, 4))


def test_num_outputs_goes_where_the_parts_become_uneven() -> None:
    net = Net(18)
    x = net.make((2, 5, 8), 2)
    for index, part in enumerate(net.add("Split", x, outputs=2, axis=2, num_outputs=2)):
        net.read(part, 2, weight=f"w_out{index}")
    outcome = prune(net.proto(), ratios={"w_out0": 0.25, "w_out1": 0.75})
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    shapes = shapes_of(outcome.model)
    assert {shapes["w_out0"][0], shapes["w_out1"][0]} <= {1, 2, 3}
    assert shapes["w_in"][1] == shapes["w_out0"][0] + shapes["w_out1"][0]


def test_a_step_that_no_longer_fits_becomes_a_gather() -> None:
    """Odd and even positions are cut differently, so what remains is at no regular distance."""
    net = Net(17, seed=5)
    x = net.make((2, 5, 16), 2)
    even = net.add("Slice", x, net.ints(0), net.ints(END), net.ints(2), net.ints(2))
    odd = net.add("Slice", x, net.ints(1), net.ints(END), net.ints(2), net.ints(2))
    net.read(even, 2, weight="w_even")
    net.read(odd, 2, weight="w_odd")
    proto = net.proto()
    outcome = prune(proto, 0.375)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert "Gather" in ops_of(outcome.model)
    assert shapes_of(outcome.model)["w_in"] == (3, 10)


def test_scalar_taken_out_of_the_axis_locks_only_itself() -> None:
    net = Net(17)
    x = net.make((2, 5, 8), 2)
    net.output(net.add("Gather", x, net.const(np.int64(3)), axis=2))
    net.read(net.add("Relu", x), 2)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert group.units == 7
    assert outcome.plan.masks(net.proto())["w_in"][0, 3]


def test_positions_that_nobody_reads_are_a_group() -> None:
    proto = build(case_of("Slice-part"), 17).proto()
    outcome = prune(proto, 0.5)
    dead = [g for g in groups_of(outcome.groups, "w_in", 1) if g.units == 2]
    assert [len(g.members) for g in dead] == [1]
    assert run(outcome.model)
