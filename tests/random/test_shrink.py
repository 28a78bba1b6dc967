"""Whatever the graph: units that are planted dead are found, and the outputs stay those of the original."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.model import load, to_proto
from onnxprune.pipelines import shrink
from onnxprune.proof.compare_outputs import difference
from tests.graphs.net import feeds_of, run
from tests.graphs.planting import RANGE, missed, plant
from tests.graphs.random_graphs import FAMILIES
from tests.random.test_graphs import quick

LONG = int(os.environ.get("ONNXPRUNE_RANDOM_GRAPHS", "2000"))


def check(proto: onnx.ModelProto, seed: int) -> int:
    """Plant, shrink and compare; how many units were planted."""
    planted, units = plant(proto, np.random.default_rng(seed))
    before = planted.SerializeToString(deterministic=True)
    ranges = {"": RANGE} if any(u.way == "range" for u in units) else None
    found = shrink.shrink_model(load(planted), shrink.ShrinkOptions(ranges=ranges or {}))
    assert planted.SerializeToString(deterministic=True) == before, "the input was changed"
    assert found.verdict is not None
    assert found.verdict.ok, found.verdict.problem
    left = missed(found, units)
    assert not left, f"missed {left}; {found.removed}; {found.stays}"
    small = to_proto(found.model)
    onnx.checker.check_model(small, full_check=True)
    for number in range(2):
        feeds = feeds_of(planted, number)
        feeds = {n: np.clip(np.abs(x), *RANGE) if x.dtype.kind == "f" and ranges else x for n, x in feeds.items()}
        wanted, ran = run(planted, feeds=feeds), run(small, feeds=feeds)
        for name, value in wanted.items():
            assert difference(value, ran[name]) <= 1e-4, name
    assert found.after.params <= found.before.params + 64
    return len(units)


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_units_are_found(family: str) -> None:
    count = 0

    @quick(8)
    @given(FAMILIES[family](), st.integers(0, 1 << 16))
    def one(proto: onnx.ModelProto, seed: int) -> None:
        nonlocal count
        count += check(proto, seed)

    one()
    assert count > 3, "next to nothing was planted"


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(*(family() for family in FAMILIES.values())), st.integers(0, 1 << 16))
def test_many_graphs(proto: onnx.ModelProto, seed: int) -> None:
    check(proto, seed)
