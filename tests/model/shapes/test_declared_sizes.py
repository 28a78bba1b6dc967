"""Time and memory follow what a file holds, not the sizes that it declares."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import api
from onnxprune.model import load
from onnxprune.tracing.labels import Constraints
from tests.graphs.net import Net

# Positions of a map of this side, each with a label of four bytes, would take 256 MiB.
SIDE = 1 << 13
# A million positions get labels whatever the file is: 4 MiB for each tensor that has them, and what is made on the way.
FEW = 64 << 20


def traced(model):
    """The groups of a model, and the most bytes that tracing held."""
    whole = load(model)
    tracemalloc.start()
    try:
        groups = api.trace(whole)
        return groups, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def units(groups):
    return {group.name: group.units for group in groups.groups}


def detector(height, width, channels=16, anchors=2):
    """A detector of one shot: maps at three scales, each reshaped into a list of boxes and one of classes."""
    net = Net()
    x, size, maps = net.input([1, 3, height, width]), 3, []
    for level, wide in enumerate((channels, 2 * channels, 4 * channels, 4 * channels, 4 * channels)):
        x = net.add("Conv", x, net.weight(wide, size, 3, 3), pads=[1] * 4, strides=[2, 2], name=f"conv{level}")
        x, size = net.add("Relu", x), wide
        maps += [x] if level > 1 else []
    lists = []
    for each in (4, 3):
        heads = (net.add("Conv", x, net.weight(anchors * each, size, 1, 1)) for x in maps)
        rows = (net.add("Transpose", x, perm=[0, 2, 3, 1]) for x in heads)
        parts = [net.add("Reshape", x, net.const(np.array([1, -1, each]))) for x in rows]
        lists.append(net.add("Concat", *parts, axis=1))
    count = sum(anchors * (height >> level) * (width >> level) for level in (3, 4, 5))
    boxes = net.add("Mul", lists[0], net.const(np.array([0.1, 0.1, 0.2, 0.2], np.float32)))
    centre, half = (
        net.add("Slice", boxes, *(net.const(np.array([v])) for v in (first, first + 2, 2))) for first in (0, 2)
    )
    half = net.add("Exp", half)
    corners = net.add("Concat", net.add("Sub", centre, half), net.add("Add", centre, half), axis=2)
    net.output(corners, [1, count, 4])
    net.output(net.add("Softmax", lists[1], axis=-1), [1, count, 3])
    return net.model()


@pytest.mark.parametrize(("height", "width"), [(960, 1280), (7680, 10240)])
def test_boxes_of_a_detector_get_no_labels_one_by_one(height, width):
    """691 million ties at 480 x 640, one for every pair of boxes of two scales, are some thousand."""
    groups, peak = traced(detector(height, width))
    small, _ = traced(detector(64, 96))
    assert units(groups) == units(small) and len(units(small)) == 5
    assert groups.prunable[0] == small.prunable[0] and peak < FEW


def _shuffled(net, x, channels):
    """Channels become pixels, as exporters that know no DepthToSpace write it."""
    split = net.add("Reshape", x, net.const(np.array([1, channels // 4, 2, 2, SIDE, SIDE])))
    turned = net.add("Transpose", split, perm=[0, 1, 4, 2, 5, 3])
    return net.add("Reshape", turned, net.const(np.array([1, channels // 4, 2 * SIDE, 2 * SIDE])))


def _ints(net, *values):
    return net.const(np.array(values, np.int64))


# What is done to a map of 16 channels: it takes (the net, the map, its channels) and gives a map of 16 or 4.
MOVES = {
    "slice": lambda net, x, c: net.add("Slice", x, _ints(net, 1), _ints(net, SIDE), _ints(net, 2)),
    "backwards": lambda net, x, c: net.add("Slice", x, *(_ints(net, v) for v in (-1, -SIDE, 3, -1))),
    "pad": lambda net, x, c: net.add("Pad", x, _ints(net, 0, 0, 1, 1, 0, 0, 1, 1)),
    "tile": lambda net, x, c: net.add("Tile", x, _ints(net, 1, 1, 2, 1)),
    "concat": lambda net, x, c: net.add("Concat", x, net.add("Neg", x), axis=2),
    "split": lambda net, x, c: net.add("Split", x, outputs=2, axis=3)[0],
    "shuffle": _shuffled,
    "depth to space": lambda net, x, c: net.add("DepthToSpace", x, blocksize=2),
    "space to depth": lambda net, x, c: net.add("SpaceToDepth", x, blocksize=2),
    "there and back": lambda net, x, c: net.add(
        "Reshape",
        net.add("Reshape", x, _ints(net, 1, c, SIDE * SIDE)),
        _ints(net, 1, c, SIDE, SIDE),
    ),
    "ones": lambda net, x, c: net.add(
        "Add", x, net.add("Expand", net.const(np.ones((1, 1, 1, 1), np.float32)), _ints(net, 1, c, SIDE, SIDE))
    ),
    "filled": lambda net, x, c: net.add("Add", x, net.add("ConstantOfShape", _ints(net, 1, 1, SIDE, SIDE))),
    "resized": lambda net, x, c: net.add("Resize", x, "", net.const(np.array([1, 1, 2, 2], np.float32))),
}
READ_BY = {"shuffle": 4, "depth to space": 4, "space to depth": 64}


@pytest.mark.parametrize("move", MOVES)
def test_positions_of_a_map_get_no_labels_one_by_one(move):
    net = Net()
    x = net.input([1, 3, SIDE, SIDE])
    x = net.add("Relu", net.add("Conv", x, net.weight(16, 3, 1, 1), name="first"))
    x = MOVES[move](net, x, 16)
    x = net.add("Conv", x, net.weight(8, READ_BY.get(move, 16), 1, 1), name="second")
    net.output(net.add("GlobalAveragePool", x), [1, 8, 1, 1])
    groups, peak = traced(net.model())
    assert [group.units for group in groups.groups] == [4 if move in ("shuffle", "depth to space") else 16]
    assert peak < FEW


@pytest.mark.parametrize("order", [[0, 2, 3, 1], [0, 3, 2, 1]])
def test_a_map_that_becomes_one_list_locks_what_it_cannot_follow(order):
    """Channels merged with positions: the layer in front stays, with the reason; its neighbours may shrink."""
    net = Net()
    x = net.input([1, 3, SIDE, SIDE])
    x = net.add("Conv", x, net.weight(16, 3, 1, 1), name="first")
    x = net.add("Conv", x, net.weight(4, 16, 1, 1), name="second")
    x = net.add("Reshape", net.add("Transpose", x, perm=order), _ints(net, 1, 4 * SIDE * SIDE))
    net.output(net.add("Neg", x), [1, 4 * SIDE * SIDE])
    groups, peak = traced(net.model())
    assert [group.units for group in groups.groups] == [16] and peak < FEW
    assert any("more positions than any weight has" in barrier.reason for barrier in groups.barriers)


# --- ties ---------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=4))
def test_ties_of_what_is_broadcast_are_those_of_all_pairs(axes):
    """`a` and `b` each vary along some axes of a common shape."""
    shapes = [[size if varies else 1 for size, *both in axes for varies in (both[side],)] for side in (0, 1)]
    ledger = Constraints()
    a, b = (ledger.fresh(name, 0, int(np.prod(shape))).reshape(shape) for name, shape in zip("ab", shapes, strict=True))
    ledger.tie(a, b)
    found = ledger.solve().of
    pairs = {(int(x), int(y)) for x, y in zip(*(v.ravel() for v in np.broadcast_arrays(a, b)), strict=True)}
    root = list(range(a.size + b.size))
    for x, y in pairs:
        low, high = sorted((root[x], root[y]))
        root = [low if r == high else r for r in root]
    assert all((found[i] == found[j]) == (root[i] == root[j]) for i in range(len(root)) for j in range(len(root)))


def test_ties_are_as_many_as_labels():
    ledger = Constraints()
    a, b = ledger.fresh("a", 0, 4000).reshape(1000, 4, 1), ledger.fresh("b", 0, 8000).reshape(1, 4, 2000)
    ledger.tie(a, b)
    classes = ledger.solve()
    assert classes.count == 4 and sum(max(x.size, y.size) for x, y in ledger._ties) <= 12_004
