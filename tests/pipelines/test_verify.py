"""A model is what a plan makes of another, whatever the plan holds; it is not where anything else was changed."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.model import Model, load
from onnxprune.pipelines.compress_source import compress
from onnxprune.pipelines.verify import prove
from onnxprune.rewriting import Plan

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits.onnx"


@cache
def sparse() -> tuple[onnx.ModelProto, Plan]:
    result = onnxprune.sparsify(DIGITS, 0.5)
    return result.model, result.plan


@cache
def stored_sparse() -> tuple[onnx.ModelProto, Plan]:
    result = onnxprune.sparsify(DIGITS, 0.9, storage="sparse")
    return result.model, result.plan


@cache
def pattern() -> tuple[onnx.ModelProto, Plan]:
    result = onnxprune.sparsify(DIGITS, pattern="2:4")
    return result.model, result.plan


@cache
def products() -> tuple[onnx.ModelProto, Plan]:
    result = compress(DIGITS, ratio=0.3, allow_slower=True)
    assert result.plan is not None
    return result.model, result.plan


@cache
def without_a_block() -> tuple[onnx.ModelProto, Plan]:
    result = onnxprune.drop(DIGITS, count=1)
    return result.model, result.plan


@cache
def narrower() -> tuple[onnx.ModelProto, Plan]:
    result = onnxprune.prune(DIGITS, 0.5)
    return result.model, result.plan


@cache
def several() -> tuple[onnx.ModelProto, Plan]:
    """Zeros, and then fewer channels."""
    plan = replace(onnxprune.make_plan(DIGITS, 0.5), zeros=sparse()[1].zeros)
    return onnxprune.apply(DIGITS, plan), plan


@cache
def shallower_and_narrower() -> tuple[onnx.ModelProto, Plan]:
    """A block less, and then fewer channels."""
    small, dropped = without_a_block()
    plan = replace(onnxprune.make_plan(small, 0.5), bypasses=dropped.bypasses)
    return onnxprune.apply(DIGITS, plan), plan


KINDS = (sparse, stored_sparse, pattern, products, without_a_block, narrower, several, shallower_and_narrower)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_a_plan_makes_is_verified(make: Callable[[], tuple[onnx.ModelProto, Plan]]) -> None:
    small, plan = make()
    verdict = prove(load(DIGITS), Model(small), Plan.from_json(plan.to_json()))
    assert verdict.ok, verdict.problem
    assert verdict.error < 1e-4


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_wrong_weight_is_refused(make: Callable[[], tuple[onnx.ModelProto, Plan]]) -> None:
    made, plan = make()
    small = onnx.ModelProto.FromString(made.SerializeToString())
    dense = [t for t in small.graph.initializer if len(t.dims) >= 2]
    weight = dense[0] if dense else small.graph.sparse_initializer[0].values
    value = numpy_helper.to_array(weight).copy()
    value.reshape(-1)[np.flatnonzero(value)[0]] *= 1.5
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    verdict = prove(load(DIGITS), Model(small), plan)
    assert not verdict.ok
    assert "differs" in verdict.problem or "is not the original's" in verdict.problem
