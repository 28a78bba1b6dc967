"""Whatever the graph: what comes out is valid, smaller, and equal to the masked original."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.errors import GoalMissed
from onnxprune.model import to_proto
from onnxprune.rewriting import Plan
from onnxprune.tracing.rules.ask import CONTRADICTION
from tests.graphs import two_judges
from tests.graphs.net import feeds_of, prune, run, shapes_of
from tests.graphs.random_graphs import FAMILIES, options

LONG = int(os.environ.get("ONNXPRUNE_RANDOM_GRAPHS", "10000"))


def quick(examples: int):
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def check(proto: onnx.ModelProto, chosen: dict[str, Any]) -> str:
    """What came of it: "pruned", or "nothing" where there is no removable group."""
    before = proto.SerializeToString(deterministic=True)
    try:
        outcome = prune(proto, **chosen)
    except GoalMissed as missed:
        assert missed.message.startswith("nothing can be pruned"), missed.message
        return "nothing"
    finally:
        assert proto.SerializeToString(deterministic=True) == before, "the input was changed"
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    assert [b.reason for b in outcome.groups.barriers if b.reason.startswith(CONTRADICTION)] == []
    small = to_proto(outcome.model)
    onnx.checker.check_model(small, full_check=True)
    assert outcome.after.params - copied(proto, small) <= outcome.before.params
    assert outcome.after.macs <= outcome.before.macs
    check_masks(proto, small, outcome.plan)
    check_other_batch(proto, small)
    two_judges.check(proto, outcome.plan)
    if not any(step.remove for step in outcome.plan.steps):
        assert small.SerializeToString(deterministic=True) == before
        return "nothing"
    return "pruned"


def copied(proto: onnx.ModelProto, small: onnx.ModelProto) -> int:
    """Entries of constants that were one (of ones, for all norms of a width), and are cut differently now."""
    known = shapes_of(proto)
    return sum(int(np.prod(shape)) for name, shape in shapes_of(small).items() if name not in known)


def check_masks(proto: onnx.ModelProto, small: onnx.ModelProto, plan: Plan) -> None:
    """What the plan says to keep is what is there, also after the plan went through its text."""
    masks = Plan.from_json(plan.to_json()).masks(proto)
    before, after = shapes_of(proto), shapes_of(small)
    for name, shape in before.items():
        if name in after and after[name] != shape and name in masks:
            assert masks[name].shape == shape
            assert masks[name].sum() == np.prod(after[name])
    grown = [n for n, s in after.items() if n in before and np.prod(s) > np.prod(before[n])]
    assert grown == []


def check_other_batch(proto: onnx.ModelProto, small: onnx.ModelProto) -> None:
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    if not dims[0].dim_param:
        return
    feeds = {name: np.repeat(value, 3, axis=0)[:5] for name, value in feeds_of(proto).items()}
    for name, value in run(small, feeds=feeds).items():
        assert value.shape[0] == 5, name


@pytest.mark.parametrize("family", FAMILIES)
def test_random_graphs(family: str) -> None:
    @quick(150 // len(FAMILIES))
    @given(FAMILIES[family](), options())
    def one(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
        check(proto, chosen)

    one()


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(*(family() for family in FAMILIES.values())), options())
def test_many_graphs(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check(proto, chosen)
