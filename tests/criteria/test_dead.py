"""Units whose removal is exact: why they may go, and why others stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.criteria import judge
from onnxprune.criteria.dead import CONSTANT, RANGE, UNREAD, ZERO
from tests.graphs.net import Net
from tests.pipelines.test_shrink import alive, layers


def causes(proto: onnx.ModelProto, **given) -> dict[int, str]:
    """Unit of the hidden layer -> why it may go."""
    groups = api.trace(proto)
    found = judge(groups, **given).causes
    units = groups.classes.of[np.ravel(groups.tracing.axes["w1"][1])].tolist()
    return {units.index(class_id): cause for class_id, cause in found.items() if class_id in units}


@pytest.mark.parametrize(("bias", "cause"), [(0.0, ZERO), (-1.0, ZERO), (2.0, CONSTANT)])
def test_units_that_nothing_enters(bias: float, cause: str) -> None:
    first, biases, second = alive()
    first[:, 2], biases[2] = 0, bias
    assert causes(layers(first, biases, second)) == {2: cause}


def test_units_that_are_multiplied_with_zeros() -> None:
    first, biases, second = alive()
    second[4] = 0
    assert causes(layers(first, biases, second)) == {4: UNREAD}


def test_a_tolerance_takes_small_weights_for_zeros() -> None:
    first, biases, second = alive()
    second[4] = 1e-5
    proto = layers(first, biases, second)
    assert causes(proto) == {} and causes(proto, tolerance=1e-4) == {4: UNREAD}


def test_a_range_makes_more_units_constant() -> None:
    first, biases, second = (np.abs(part) for part in alive())
    first[:, 5], biases[5] = 1.0, -9.0
    proto = layers(first, biases, second)
    assert causes(proto) == {} and causes(proto, ranges={"x": (0.0, 2.0)}) == {5: RANGE}
    assert causes(proto, ranges={"x": (0.0, 3.0)}) == {}, "12 - 9 is more than nothing"


def test_what_an_average_needs_stays_with_a_reason() -> None:
    net = Net()
    w = np.random.default_rng(0).standard_normal((4, 6))
    w[:, 1] = 0
    h = net.add("MatMul", net.input([2, 4]), net.const(w, "w1", np.float32))
    h = net.add("LayerNormalization", h, net.weight(6))
    net.output(net.add("MatMul", h, net.weight(6, 3, name="w2")))
    groups = api.trace(net.proto())
    found = judge(groups)
    assert any("depends on how many positions there are" in why for why in found.stays.values()) and not found.causes
