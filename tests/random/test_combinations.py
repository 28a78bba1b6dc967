"""Whatever the graph, and in whatever order: every verb is proven on what the one before it left, and a judge agrees.

No judge knows how the verb works: what is lossless is held against the model before it; dropped blocks against all of
its nodes, rewired; zeros and products against other numbers in its weights; removed units against zeros in them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxprune.allocation import Options
from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.errors import GoalMissed
from onnxprune.model import load, to_proto
from onnxprune.pipelines import low_rank, prune, shrink
from onnxprune.pipelines.apply import execute
from onnxprune.pipelines.compress import compressed
from onnxprune.pipelines.drop import drop_blocks
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.proof import Verdict
from onnxprune.proof.compare_outputs import difference
from onnxprune.proof.factorised import projected_original
from onnxprune.sparsity import SparsifyOptions
from tests.graphs.net import feeds_of, run
from tests.graphs.random_graphs import FAMILIES
from tests.graphs.random_residuals import residual_nets
from tests.random.test_drop import rewired
from tests.random.test_graphs import quick

# What a proof says of a model whose outputs are what is left of numbers that cancel, once its weights are of rank one.
UNTOLD = "no output says anything"
LONG = int(os.environ.get("ONNXPRUNE_RANDOM_GRAPHS", "2000"))
# The result, what it must equal (None where no judge can be made), and the proof.
Made = tuple[onnx.ModelProto, onnx.ModelProto | None, Verdict | None]


def shrunk(proto: onnx.ModelProto, seed: int) -> Made:
    found = shrink.shrink_model(load(proto), shrink.ShrinkOptions())
    return to_proto(found.model), proto, found.verdict


def dropped(proto: onnx.ModelProto, seed: int) -> Made:
    found = drop_blocks(load(proto), DropOptions(count=1, criterion="random", units="all", seed=seed), RunInputs())
    return to_proto(found.model), rewired(proto, found), found.verdict


def weights_of(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers, and the values of Constant nodes, by name."""
    constants = [node for node in proto.graph.node if node.op_type == "Constant"]
    values = {n.output[0]: a.t for n in constants for a in n.attribute if a.name == "value"}
    return {**values, **{tensor.name: tensor for tensor in proto.graph.initializer}}


def with_zeros(proto: onnx.ModelProto, seed: int) -> Made:
    found = sparsified(load(proto), SparsifyOptions(0.5, method="random", seed=seed))
    small, reference = to_proto(found.model), onnx.ModelProto()
    reference.CopyFrom(proto)
    stored, masks = {t.name: t for t in small.graph.initializer}, {step.tensor for step in found.plan.zeros}
    for name, tensor in weights_of(reference).items():
        if name in masks and name in stored:
            old, new = numpy_helper.to_array(tensor), numpy_helper.to_array(stored[name])
            tensor.CopyFrom(numpy_helper.from_array(np.where(new == 0, 0, old).astype(old.dtype), tensor.name))
    return small, reference, found.verdict


def tidied(proto: onnx.ModelProto, seed: int) -> Made:
    found = compressed(load(proto))
    return to_proto(found.model), proto, found.verdict


def as_products(proto: onnx.ModelProto, seed: int) -> Made:
    options = LowRankOptions(ratio=0.3, allow_slower=True, round_to=1)
    found = low_rank.factorised(load(proto), options)
    reference = projected_original(found.groups, found.plan.factors)
    return to_proto(found.model), to_proto(reference), found.verdict


def pruned(proto: onnx.ModelProto, seed: int) -> Made:
    options = Options(0.4, criterion="random", seed=seed, exact_only=True)
    found = prune.run(load(proto), options)
    assert not found.rolled_back, found.rolled_back
    reference = execute(load(proto), found.plan, zero=True).model
    return to_proto(found.model), to_proto(reference), found.verdict


VERBS: dict[str, Callable[[onnx.ModelProto, int], Made]] = {
    "shrink": shrunk,
    "drop": dropped,
    "sparsify": with_zeros,
    "compress": tidied,
    "compress to products": as_products,
    "prune": pruned,
}
CHAINS = st.permutations(sorted(VERBS)).flatmap(lambda verbs: st.sampled_from([verbs[:2], verbs[:3]]))


def check(proto: onnx.ModelProto, chain: list[str], seed: int) -> Counter[str]:
    """Carry the verbs out in their order; how often each did something."""
    done: Counter[str] = Counter()
    for verb in chain:
        before = proto.SerializeToString(deterministic=True)
        try:
            small, reference, verdict = VERBS[verb](proto, seed)
        except GoalMissed as missed:
            assert missed.message.startswith("nothing"), missed.message
            continue
        assert proto.SerializeToString(deterministic=True) == before, "the input was changed"
        if verdict is not None and verdict.problem.startswith(UNTOLD):  # refused, and so nothing to go on with
            continue
        assert verdict is not None and verdict.ok, (verb, verdict and verdict.problem)
        onnx.checker.check_model(small, full_check=True)
        assert [v.name for v in small.graph.output] == [v.name for v in proto.graph.output]
        for number in range(2 if reference is not None else 0):
            feeds = feeds_of(proto, number)
            wanted, ran = run(reference, feeds=feeds), run(small, feeds=feeds)
            for name, value in wanted.items():
                assert difference(value, ran[name]) <= 1e-4, (verb, name)
        done[verb] += 1
        proto = small
    return done


GRAPHS = {**FAMILIES, "residual": residual_nets}


@pytest.mark.parametrize("family", GRAPHS)
def test_verbs_in_any_order(family: str) -> None:
    done: Counter[str] = Counter()

    @quick(25)
    @given(GRAPHS[family](), CHAINS, st.integers(0, 1 << 16))
    def one(proto: onnx.ModelProto, chain: list[str], seed: int) -> None:
        done.update(check(proto, chain, seed))

    one()
    assert sum(done.values()) > 25, done


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(*(family() for family in GRAPHS.values())), CHAINS, st.integers(0, 1 << 16))
def test_many_graphs(proto: onnx.ModelProto, chain: list[str], seed: int) -> None:
    check(proto, chain, seed)
