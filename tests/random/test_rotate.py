"""Whatever the graph: units of linear groups may be turned without a change of any output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.model import load, to_proto
from onnxprune.pipelines.unit_rotation import proven_rotation
from onnxprune.rewriting import RotateStep, rotatable_groups
from onnxprune.tracing import trace
from tests.graphs.net import shapes_of
from tests.graphs.random_graphs import FAMILIES
from tests.random.test_graphs import LONG, quick


def check(proto: onnx.ModelProto, seed: int) -> int:
    """Turn the units of every linear group, every other time within heads; how many groups there were."""
    rng, groups = np.random.default_rng(seed), trace(load(proto), head_dims=bool(seed % 2))
    steps = [
        RotateStep(name, tuple(np.linalg.qr(rng.standard_normal((len(c),) * 2))[0] for c in group.cells))
        for name, group in rotatable_groups(groups).items()
    ]
    if steps:
        found = to_proto(proven_rotation(groups, steps, sizes={}))
        assert shapes_of(found).items() >= shapes_of(proto).items()
    return len(steps)


@pytest.mark.parametrize("family", FAMILIES)
def test_rotations_change_no_output(family: str) -> None:
    @quick(10)
    @given(FAMILIES[family](), st.integers(0, 99))
    def every(proto: onnx.ModelProto, seed: int) -> None:
        check(proto, seed)

    every()


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_rotations_change_no_output_in_many_graphs(family: str) -> None:
    seen: list[int] = []

    @quick(LONG // len(FAMILIES) // 5)
    @given(FAMILIES[family](), st.integers(0, 99))
    def every(proto: onnx.ModelProto, seed: int) -> None:
        seen.append(check(proto, seed))

    every()
    assert sum(seen) > 5
