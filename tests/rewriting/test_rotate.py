"""Units turned into directions: the same outputs, other weights, and steps that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.rewriting import Plan, RotateStep, rotatable_groups, with_rotation
from onnxprune.rewriting.rotate import nearest_orthogonal
from onnxprune.tracing import trace
from tests.graphs.linear import SIZE, WIDTH, attention, bottleneck
from tests.graphs.net import run


def basis(size: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0].astype(np.float32)


STEP = RotateStep("stem", (basis(WIDTH),))


def values(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_a_rotated_stream_gives_the_same_outputs_by_other_weights() -> None:
    proto = bottleneck()
    found = to_proto(with_rotation(trace(load(proto)), [STEP]))
    before, after = values(proto), values(found)
    turn = nearest_orthogonal(STEP.bases[0])
    np.testing.assert_allclose(after["stem"][..., 0, 0], turn.T @ before["stem"][..., 0, 0], atol=1e-6)
    np.testing.assert_allclose(after["expand0"][..., 0, 0], before["expand0"][..., 0, 0] @ turn, atol=1e-6)
    np.testing.assert_allclose(after["classes"], turn.T @ before["classes"], atol=1e-6)
    feeds = {"x": np.random.default_rng(1).standard_normal((4, 3, SIZE, SIZE)).astype(np.float32)}
    (one,), (other,) = (run(p, feeds=feeds).values() for p in (proto, found))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert found.graph.node == proto.graph.node


def test_every_head_has_directions_of_its_own() -> None:
    proto = attention()
    groups = trace(load(proto), head_dims=True)
    assert [*rotatable_groups(groups)] == ["key", "value"]
    found = to_proto(with_rotation(groups, [RotateStep("value", (basis(4, 1), basis(4, 2)))]))
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 5, 8)).astype(np.float32)}
    (one,), (other,) = (run(p, feeds=feeds).values() for p in (proto, found))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not np.allclose(values(found)["out"], values(proto)["out"], atol=0.1)
    np.testing.assert_array_equal(values(found)["key"], values(proto)["key"])


def test_a_basis_that_was_rounded_is_orthogonal_again() -> None:
    exact = np.linalg.qr(np.random.default_rng(3).standard_normal((9, 9)))[0]
    found = nearest_orthogonal(exact.astype(np.float16))
    np.testing.assert_allclose(found.T @ found, np.eye(9), atol=1e-14)
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_a_plan_with_rotations_is_text_and_back() -> None:
    plan = Plan((), rotations=(STEP, RotateStep("value", (basis(4), basis(2)))))
    again = Plan.from_json(plan.to_json())
    for one, other in zip(plan.rotations, again.rotations, strict=True):
        assert one.group == other.group
        for left, right in zip(one.bases, other.bases, strict=True):
            np.testing.assert_array_equal(left, right)


PLAIN = STEP.as_json()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"group": 1}, r"must be a text @ \$.s.group"),
        ({"units": []}, r"list of positive integers @ \$.s.units"),
        ({"units": [True]}, r"list of positive integers @ \$.s.units"),
        ({"bases": []}, r"one a cell @ \$.s.bases"),
        ({"bases": ["!"]}, r"8 x 8 orthonormal float32.* @ \$.s.bases\[0\]"),
        ({"units": [7]}, r"7 x 7 orthonormal float32.* @ \$.s.bases\[0\]"),
        ({"bases": RotateStep("stem", (2 * STEP.bases[0],)).as_json()["bases"]}, r"orthonormal"),
    ],
)
def test_a_step_that_is_none_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        RotateStep.from_json(PLAIN | changed, "$.s")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (RotateStep("other", STEP.bases), "no group 'other'"),
        (RotateStep("stem", (basis(3),)), "8 units in the model, 3 in the plan"),
        (RotateStep("stem", (basis(4), basis(4))), "other rows"),
        (RotateStep("expand0", (basis(16),)), "cannot be rotated: Relu"),
    ],
)
def test_a_plan_of_another_model_is_refused(step: RotateStep, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        with_rotation(trace(load(bottleneck())), [step])


def test_directions_are_no_masks_of_elements() -> None:
    with pytest.raises(UsageError, match="directions go"):
        Plan((), rotations=(STEP,)).masks(bottleneck())
