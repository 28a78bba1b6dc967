"""Weights, their uses, and constants that several nodes share."""

from __future__ import annotations

import numpy as np

from onnxprune import api
from tests.graphs.net import INT64, Net, array_of, group_of, prune, shapes_of, with_arrays


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
