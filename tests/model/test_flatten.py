"""Bodies laid out flat, and put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.model import flatten as flat_graph
from onnxprune.model import load, protos
from tests.graphs.net import feeds_of, prune, run
from tests.model.test_control_flow import model, recurrent, two_branches, weight


@pytest.mark.parametrize("proto", [two_branches(), recurrent()], ids=["If", "Loop"])
def test_bodies_come_back_as_they_were(proto: onnx.ModelProto) -> None:
    flat = flat_graph.flattened(load(proto))
    assert all(next(protos.bodies(node), None) is None for node in flat.proto.graph.node)
    again = onnx.ModelProto()
    again.CopyFrom(flat.proto)
    flat_graph.unflatten(again.graph)
    assert again == proto


def test_names_of_sibling_bodies_are_told_apart() -> None:
    flat = flat_graph.flattened(load(two_branches())).proto.graph
    names = [o for n in flat.node for o in n.output]
    assert len(set(names)) == len(names)
    assert len({t.name for t in flat.initializer}) == len(flat.initializer) == 7


def test_a_model_without_bodies_stays_the_same_object() -> None:
    plain = load(model("(float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }"))
    assert flat_graph.flattened(plain) is plain


def test_external_weights_of_bodies(tmp_path: Path) -> None:
    onnx.save(two_branches(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    outcome = prune(load(tmp_path / "m.onnx"))
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    inside = prune(two_branches())
    for condition in (True, False):
        feeds = feeds_of(two_branches()) | {"c": np.array(condition)}
        found, wanted = run(outcome.model, feeds=feeds), run(inside.model, feeds=feeds)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("pairs", [False, True])
def test_sparse_weights(inside: bool, pairs: bool) -> None:
    """Their indices are flat, or one per axis; they may lie in a body."""
    dense = numpy_helper.to_array(weight("dense", 8, 6))
    dense = np.where(dense > 0, dense, 0)
    places = np.argwhere(dense) if pairs else np.flatnonzero(dense)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[dense > 0], "sp"), numpy_helper.from_array(places, "sp_places"), dense.shape
    )
    proto = model(
        """(float[N, 4] x, bool c) => (float[N, 3] y) {
          h = MatMul(x, w1)
          m = If (c) <
            then_branch = then () => (float[N, 6] t) { t = MatMul(h, sp) },
            else_branch = other () => (float[N, 6] e) { e = MatMul(h, v) }
          >
          y = MatMul(m, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 6, 3), weight("v", 8, 6)),
    )
    branch = next(protos.bodies(next(n for n in proto.graph.node if n.op_type == "If")))
    (branch if inside else proto.graph).sparse_initializer.append(sparse)
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    left = [tuple(s.dims) for g in protos.graphs(outcome.model.proto.graph) for s in g.sparse_initializer]
    assert left == [(4, 3)]
