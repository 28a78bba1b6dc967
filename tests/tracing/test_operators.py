"""Every operator between two contractions: a sample here, all node tests in the long run."""

from __future__ import annotations

import pytest

from tests.graphs.node_cases import all_cases
from tests.graphs.own_cases import own_cases
from tests.measure.operators import PROVEN, WRONG, Result, examine_newest, sweep

# One test in so many is taken; the step is coprime to the runs in which the tests come.
STEP = 41
# Computed weights of grouped convolutions go by groups; regions of MaxRoiPool name their image by a whole number.
GAPS = {("Conv", 1, 1), ("ConvTranspose", 1, 1), ("MaxRoiPool", 1, 0)}


def check(results: list[Result]) -> None:
    assert [r for r in results if r.status == WRONG] == []
    assert [r for r in results if r.status == PROVEN and not r.allowed] == []


def test_own_cases() -> None:
    results = [r for case in own_cases() for r in examine_newest(case)]
    check(results)
    assert {(r.op, r.slot, r.axis) for r in results if r.allowed and r.status != PROVEN} == GAPS


def test_sample_of_node_tests() -> None:
    results = [r for case in all_cases()[::STEP] for r in examine_newest(case)]
    check(results)
    assert sum(r.status == PROVEN for r in results) > 50


@pytest.mark.long
def test_every_node_test() -> None:
    check(sweep([*all_cases(), *own_cases()], jobs=2))


# Axes of queries next to a mask or a cache, of places that are rotated, of the states of a recurrence; numbers that
# matter where they are equal to others, or none at all.
WHOLLY = (
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask",
    "test_equal_int8",
    "test_isnan",
    "test_linear_attention_gated_delta_gqa",
    "test_rotary_embedding",
    "test_rotary_embedding_no_position_ids_rotary_dim",
)
# This takes longer, and its definition allows the same axes as that of the one above.
LONGER = pytest.param("test_linear_attention_prefill_with_past", marks=pytest.mark.long)


@pytest.mark.parametrize("name", [*WHOLLY, LONGER])
def test_every_axis_that_the_definition_allows(name: str) -> None:
    (case,) = (c for c in all_cases() if c.name == name)
    results = list(examine_newest(case))
    check(results)
    assert [r for r in results if r.allowed and r.status != PROVEN] == []
    assert any(r.allowed for r in results)
