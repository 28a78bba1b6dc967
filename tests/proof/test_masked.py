"""The masked reference."""

from __future__ import annotations

import numpy as np

from onnxprune import api
from onnxprune.proof import prove
from onnxprune.proof.compare_outputs import difference
from onnxprune.proof.masked import masked
from tests.graphs.net import Net, array_of, prune, run, with_arrays
from tests.proof.proven import network


def gone_of(outcome: api.Outcome) -> np.ndarray:
    return outcome.plan.removed(outcome.groups)


def test_the_reference_differs_from_the_original(outcome: api.Outcome) -> None:
    """Otherwise the comparison would say nothing."""
    original, reference = run(network()), run(masked(outcome.groups, gone_of(outcome)))
    for name, value in original.items():
        assert difference(value, reference[name]) > 100 * prove.TOLERANCES[1]


def test_the_reference_without_a_cut_is_the_original(outcome: api.Outcome) -> None:
    nothing = np.zeros(outcome.groups.classes.count, bool)
    original, reference = run(network()), run(masked(outcome.groups, nothing))
    for name, value in original.items():
        np.testing.assert_array_equal(value, reference[name])


def test_the_reference_zeroes_in_front_of_every_contraction(outcome: api.Outcome) -> None:
    """Equal to zeros in the rows of the reading weights."""
    proto, masks = network(), outcome.plan.masks(network())
    zeroed = {n: np.where(masks[n].any(axis=1, keepdims=True), array_of(proto, n), 0) for n in ("w2", "w3")}
    wanted = run(with_arrays(proto, {n: v.astype(np.float32) for n, v in zeroed.items()}))
    for name, value in run(masked(outcome.groups, gone_of(outcome))).items():
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-6)


def test_the_reference_of_a_norm_counts_the_remaining_positions_only() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    x = net.add("LayerNormalization", x, net.weight(8, name="scale"), net.weight(8, name="bias"))
    net.read(x, 2)
    proto = net.proto()
    outcome = prune(proto)
    assert not outcome.groups.groups[0].exact
    kept = outcome.plan.masks(proto)["w_in"][0]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)}
    hidden = (feeds["x"] @ array_of(proto, "w_in"))[..., kept]
    normal = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-5)
    normal = normal * array_of(proto, "scale")[kept] + array_of(proto, "bias")[kept]
    wanted = normal @ array_of(proto, "w_out")[kept]
    (reference,) = run(masked(outcome.groups, gone_of(outcome)), feeds=feeds).values()
    (small,) = run(outcome.model, feeds=feeds).values()
    np.testing.assert_allclose(reference, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(small, wanted, rtol=0, atol=1e-5)


def test_the_reference_masks_with_a_product_before_where_knew_floats() -> None:
    net = Net(7)
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    outcome = prune(net.proto())
    ops = [n.op_type for n in masked(outcome.groups, gone_of(outcome)).proto.graph.node]
    assert "Where" not in ops
    assert outcome.verdict is not None
    assert outcome.verdict.ok


def test_readers_of_a_tensor_share_its_zeros() -> None:
    net = Net()
    hidden = net.add("Relu", net.add("MatMul", net.input([2, 4], "x"), net.weight(4, 8)))
    for _ in range(3):
        net.output(net.add("MatMul", hidden, net.weight(8, 3)), [2, 3])
    outcome = prune(net.proto())
    removed = outcome.plan.removed(outcome.groups)
    reference = masked(outcome.groups, removed).proto
    assert [node.op_type for node in reference.graph.node].count("Where") == 1
    assert outcome.verdict is not None and outcome.verdict.ok
