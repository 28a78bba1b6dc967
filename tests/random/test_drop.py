"""Whatever the graph: blocks that are dropped are gone, and the result is the original run without them."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.errors import GoalMissed
from onnxprune.model import load, to_proto
from onnxprune.pipelines.drop import drop_blocks, list_blocks
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.proof.compare_outputs import difference
from onnxprune.rewriting import Plan
from tests.graphs.net import feeds_of, run
from tests.graphs.random_graphs import FAMILIES
from tests.graphs.random_residuals import residual_nets
from tests.random.test_graphs import quick

LONG = int(os.environ.get("ONNXPRUNE_RANDOM_GRAPHS", "2000"))


def rewired(proto: onnx.ModelProto, found: Dropped) -> onnx.ModelProto | None:
    """The original with all of its nodes, in which what enters a block also has the name of what left it.

    None where a block ends in the body of a loop or branch.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    blocks = {scored.block.exit: scored.block for scored in found.dropped}
    del changed.graph.node[:]
    for node in proto.graph.node:
        added = changed.graph.node.add()
        added.CopyFrom(node)
        added.output[:] = [f"{name}__left" if name in blocks else name for name in node.output]
        for name in blocks.keys() & set(node.output):
            changed.graph.node.append(helper.make_node("Identity", [blocks.pop(name).entry], [name]))
    return None if blocks else changed


def check(proto: onnx.ModelProto, seed: int) -> str:
    """Drop some blocks; what came of it."""
    before = proto.SerializeToString(deterministic=True)
    rng = np.random.default_rng(seed)
    units = str(rng.choice(["blocks", "branches", "runs", "all"]))
    options = DropOptions(ratio=float(rng.choice([0.1, 0.5, 1.0])), units=units, criterion="random", seed=seed)
    data = "random" if rng.random() < 0.2 else None
    try:
        found = drop_blocks(load(proto), options, RunInputs(data, 16))
    except GoalMissed as missed:
        assert missed.message.startswith("nothing to drop")
        return "nothing"
    finally:
        assert proto.SerializeToString(deterministic=True) == before, "the input was changed"
    for verdict in (found.verdict, *([found.repaired_verdict] if found.repaired_verdict else [])):
        assert verdict is not None and verdict.ok, verdict.problem
    small = to_proto(found.model)
    onnx.checker.check_model(small, full_check=True)
    gone = {name for scored in found.dropped for name in scored.block.weights}
    assert not gone & {t.name for t in small.graph.initializer}
    added = sum(stand.params for stand in found.stand_ins)
    biases = found.after.params - found.before.params + sum(scored.params for scored in found.dropped) - added
    assert biases <= 64, "nothing but biases is added"
    if found.repaired_verdict is None:
        check_by_rewiring(proto, small, found)
        check_plan(proto, small, found)
    return "dropped"


def check_by_rewiring(proto: onnx.ModelProto, small: onnx.ModelProto, found: Dropped) -> None:
    """A second judge, with everything still in the graph."""
    reference = rewired(proto, found)
    if reference is None:
        return
    for number in range(2):
        feeds = feeds_of(proto, number)
        wanted, ran = run(reference, feeds=feeds), run(small, feeds=feeds)
        for name, value in wanted.items():
            assert difference(value, ran[name]) <= 1e-4, name


def check_plan(proto: onnx.ModelProto, small: onnx.ModelProto, found: Dropped) -> None:
    """The plan does the same again, also after it went through its text."""
    plan = Plan.from_json(found.plan.to_json())
    again = drop_blocks(load(proto), DropOptions(), RunInputs(), plan=plan, verify=False)
    assert to_proto(again.model).SerializeToString(deterministic=True) == small.SerializeToString(deterministic=True)


def test_residual_networks() -> None:
    counts: Counter[str] = Counter()

    @quick(40)
    @given(residual_nets(), st.integers(0, 1 << 16))
    def one(proto: onnx.ModelProto, seed: int) -> None:
        counts[check(proto, seed)] += 1

    one()
    assert counts["dropped"] > 12, counts


@pytest.mark.parametrize("family", FAMILIES)
def test_other_graphs(family: str) -> None:
    @quick(15)
    @given(FAMILIES[family](), st.integers(0, 1 << 16))
    def one(proto: onnx.ModelProto, seed: int) -> None:
        check(proto, seed)

    one()


def test_what_is_listed_has_one_way_in() -> None:
    """Every block that may go has one entry: without what enters it, nothing leaves it that depends on the inputs."""

    @quick(15)
    @given(residual_nets())
    def one(proto: onnx.ModelProto) -> None:
        for scored in list_blocks(load(proto), DropOptions()):
            block = scored.block
            assert block.entry not in block.nodes and block.exit in {o for n in proto.graph.node for o in n.output}

    one()


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(residual_nets(), *(family() for family in FAMILIES.values())), st.integers(0, 1 << 16))
def test_many_graphs(proto: onnx.ModelProto, seed: int) -> None:
    check(proto, seed)
