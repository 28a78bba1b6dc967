"""Operators that ONNX Runtime has for a GPU alone: what stands for them is held against numpy, and differentiated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 3, 8)).astype(np.float32)
SKIP = RNG.standard_normal((2, 3, 3, 8)).astype(np.float32)
GAMMA, BETA, BIAS = (RNG.standard_normal(8).astype(np.float32) for _ in range(3))


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """Group normalisation of channels that are last."""
    apart = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, variance = apart.mean((1, 3), keepdims=True), apart.var((1, 3), keepdims=True)
    return ((apart - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * GAMMA + BETA


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _half_gated(x: np.ndarray) -> np.ndarray:
    from math import erf

    a, b = np.split(x, 2, -1)
    return a * b * 0.5 * (1 + np.vectorize(erf)(b / np.sqrt(2)))


CHANNELS_FIRST = [0, 3, 1, 2]
CASES: list[tuple[str, list[np.ndarray], dict[str, Any], list[np.ndarray]]] = [
    ("BiasAdd", [X, BIAS, SKIP], {}, [X + BIAS + SKIP]),
    ("BiasSplitGelu", [X, BIAS], {}, [_half_gated(X + BIAS)]),
    ("GroupNorm", [X, GAMMA, BETA], {"groups": 4, "activation": 1}, [_silu(_grouped(X, 4))]),
    (
        "GroupNorm",
        [X.transpose(CHANNELS_FIRST), GAMMA, BETA],
        {"groups": 2, "activation": 0, "channels_last": 0},
        [_grouped(X, 2).transpose(CHANNELS_FIRST)],
    ),
    (
        "SkipGroupNorm",
        [X, GAMMA, BETA, SKIP, BIAS],
        {"groups": 4, "activation": 0},
        [_grouped(X + SKIP + BIAS, 4), X + SKIP + BIAS],
    ),
]


@pytest.mark.parametrize(("operator", "inputs", "attributes", "wanted"), CASES, ids=lambda value: str(value)[:16])
def test_standard_nodes(
    operator: str, inputs: list[np.ndarray], attributes: dict[str, Any], wanted: list[np.ndarray]
) -> None:
    names = [f"in{i}" for i in range(len(inputs))]
    outputs = [f"out{i}" for i in range(len(wanted))]
    graph = helper.make_graph(
        [helper.make_node(operator, names, outputs, domain="com.microsoft", **attributes)],
        "fused",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in zip(names, inputs, strict=True)],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    training = build_vjp(Model(helper.make_model(graph, opset_imports=imports, ir_version=8)), {}, parameters=names)
    assert set(training.gradients) == set(names)
    with Session(Model(training.model), threads=1) as session:
        fed = {**training.parameters, **{n: np.zeros(s, k) for n, (s, k) in training.targets.items()}}
        found = session.run(fed, [training.outputs[name] for name in outputs])
    for result, array in zip(found, wanted, strict=True):
        assert np.allclose(result, array, atol=1e-4)
    extra = {n: RNG.standard_normal(shape).astype(kind) for n, (shape, kind) in training.targets.items()}
    steps = {n: RNG.standard_normal(a.shape).astype(np.float32) for n, a in training.parameters.items()}
    with GradientSession(training, Setting(threads=1)) as session:
        gradients = session.evaluate(extra, {}).gradients
        slope = sum(float((gradients[n] * s).sum()) for n, s in steps.items())
        moved = [
            session.loss(extra, {n: training.parameters[n] + d * s for n, s in steps.items()}) for d in (1e-3, -1e-3)
        ]
    assert (moved[0] - moved[1]) / 2e-3 == pytest.approx(slope, rel=1e-2)
