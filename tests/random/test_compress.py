"""Whatever the graph: what the function does not need goes, and the outputs stay those of the original."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.model import load, to_proto
from onnxprune.pipelines.compress import compressed
from onnxprune.proof.compare_outputs import difference
from tests.graphs.net import feeds_of, run
from tests.graphs.random_graphs import FAMILIES
from tests.graphs.superfluous import add_superfluous
from tests.random.test_graphs import quick

LONG = int(os.environ.get("ONNXPRUNE_RANDOM_GRAPHS", "2000"))


def check(proto: onnx.ModelProto, seed: int) -> Counter[str]:
    """Add, compress and compare; what was added."""
    planted, counted = add_superfluous(proto, np.random.default_rng(seed))
    before = planted.SerializeToString(deterministic=True)
    found = compressed(load(planted))
    assert planted.SerializeToString(deterministic=True) == before, "the input was changed"
    assert found.verdict is not None and found.verdict.ok, found.verdict
    # Sharing two numbers takes a few bytes more than it saves; nothing else may be left undone.
    assert {stage.left for stage in found.stages} <= {"", "it is larger"}, found.stages
    assert found.sizes[1] <= found.sizes[0] and found.nodes[1] <= found.nodes[0]
    small = to_proto(found.model)
    onnx.checker.check_model(small, full_check=True)
    for kind in ("input", "output"):
        old, new = ([v.SerializeToString() for v in getattr(p.graph, kind)] for p in (planted, small))
        assert old == new, kind
    for number in range(2):
        feeds = feeds_of(planted, number)
        wanted, ran = run(planted, feeds=feeds), run(small, feeds=feeds)
        for name, value in wanted.items():
            assert difference(value, ran[name]) <= 1e-4, name
    left = {o for node in small.graph.node if node.op_type == "Identity" for o in node.output}
    assert left <= {value.name for value in small.graph.output}
    assert not any(node.name == "dead" for node in small.graph.node)
    return counted


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_added_goes(family: str) -> None:
    counted: Counter[str] = Counter()

    @quick(34)
    @given(FAMILIES[family](), st.integers(0, 1 << 16))
    def one(proto: onnx.ModelProto, seed: int) -> None:
        counted.update(check(proto, seed))

    one()
    assert counted["scale"] > 5 and counted["shift"] > 5 and counted["identity"] > 5, counted


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(*(family() for family in FAMILIES.values())), st.integers(0, 1 << 16))
def test_many_graphs(proto: onnx.ModelProto, seed: int) -> None:
    check(proto, seed)
