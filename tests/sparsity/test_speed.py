"""What zeros do for the time, and which layers TensorRT's sparse kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.sparsity import contraction_weights, pattern_of
from onnxprune.sparsity.speed import Speed, eligible_layers
from tests.graphs.net import Net


def problem_of(op: str, shape: tuple[int, ...], weight: tuple[int, ...], **attributes: Any) -> str:
    net = Net()
    w = net.const(np.ones(weight, np.float32), "w")
    net.output(net.add(op, net.input(shape), w, **attributes))
    (layer,) = eligible_layers(contraction_weights(api.trace(net.proto()))[0], pattern_of("2:4"))
    assert layer.name == "w"
    return layer.problem


@pytest.mark.parametrize(
    ("op", "shape", "weight", "attributes", "problem"),
    [
        ("Gemm", (2, 8), (256, 8), {"transB": 1}, ""),
        ("Conv", (1, 4, 5, 5), (256, 4, 3, 3), {}, ""),
        ("MatMul", (2, 8), (8, 256), {}, "MatMul is not Gemm nor Conv: as a Gemm it might be"),
        ("Gemm", (2, 8), (255, 8), {"transB": 1}, "it has 255 outputs, fewer than 256"),
        ("Gemm", (2, 6), (256, 6), {"transB": 1}, "its 6 inputs are no multiple of 4"),
        ("Conv", (1, 8, 5, 5), (256, 4, 3, 3), {"group": 2}, "it has groups"),
        ("ConvTranspose", (1, 4, 5, 5), (4, 256, 3, 3), {}, "ConvTranspose is not Gemm nor Conv"),
    ],
)
def test_what_tensorrt_asks_for(
    op: str, shape: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any], problem: str
) -> None:
    assert problem_of(op, shape, weight, **attributes) == problem


def test_other_patterns_have_no_sparse_kernels() -> None:
    assert eligible_layers([], pattern_of("1:4")) == []


@pytest.mark.parametrize(
    ("ratio", "faster"),
    [(TimeRatio(0.8, 0.75, 0.85), True), (TimeRatio(1.2, 1.1, 1.3), False), (TimeRatio(0.98, 0.9, 1.05), False)],
)
def test_faster_is_beyond_the_noise(ratio: TimeRatio, faster: bool) -> None:
    assert Speed(1.0, ratio.value, ratio, Place()).is_faster is faster
