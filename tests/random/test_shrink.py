"""Whatever the graph: units that are planted dead are found, and the outputs stay those of the original."""

from __future__ import annotations

import os
from collections import defaultdict

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.model import load, to_proto
from onnxprune.pipelines import shrink
from onnxprune.proof.compare_outputs import difference
from tests.graphs.net import feeds_of, run
from tests.graphs.planting import RANGE, Planted, plant
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
    assert_found(found, units)
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


def assert_found(found: shrink.Shrunk, units: list[Planted]) -> None:
    """Every planted unit is among those that went; of a unit and its multiple one of the two."""
    removed = defaultdict[str, set[int]](set)
    for part in found.removed:
        removed[part.group].update(part.positions)
    whole = {p.group: sum(q.units for q in found.removed if q.group == p.group) for p in found.removed}
    kept = {group.name: group.units - whole.get(group.name, 0) for group in found.groups.groups}
    missed = [u for u in units if not {u.index, u.twin} & removed[u.group] and kept[u.group] > 1]
    assert not missed, f"missed {missed}; {found.removed}; {found.stays}"


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_units_are_found(family: str) -> None:
    count = 0

    @quick(14)
    @given(FAMILIES[family](), st.integers(0, 1 << 16))
    def one(proto: onnx.ModelProto, seed: int) -> None:
        nonlocal count
        count += check(proto, seed)

    one()
    assert count > 5, "next to nothing was planted"


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(*(family() for family in FAMILIES.values())), st.integers(0, 1 << 16))
def test_many_graphs(proto: onnx.ModelProto, seed: int) -> None:
    check(proto, seed)
