"""Positions that are multiples of each other: through what they are known, and what takes them over."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.criteria.clusters import clusters
from onnxprune.model import load, to_proto
from onnxprune.pipelines.shrink import shrink_model
from onnxprune.proof.compare_outputs import difference
from tests.graphs.net import Net, run


@pytest.mark.parametrize("factor", [1.0, 0.37, 2.0])
def test_a_channel_of_many_positions_is_a_multiple_of_another(factor: float) -> None:
    """Every position has weights of its own, and its own largest weight; the factor is the same everywhere."""
    net = Net(seed=3)
    x = net.input([2, 5], "x")
    weight, bias = net.rng.standard_normal((8, 9, 5)), net.rng.standard_normal((8, 9))
    weight[6], bias[6] = factor * weight[1], factor * bias[1]
    stored = [net.const(value.astype(np.float32)) for value in (weight.reshape(72, 5), bias.reshape(72))]
    y = net.add("Relu", net.add("Gemm", x, *stored, transB=1))
    y = net.add("Reshape", y, net.ints(2, 8, 3, 3))
    net.output(net.add("Conv", y, net.weight(4, 8, 3, 3), pads=[1, 1, 1, 1]))
    model = net.model()
    found = shrink_model(load(model))
    assert [(part.cause, part.positions) for part in found.removed] == [("multiple", (6,))]
    wanted, made = run(model), run(to_proto(found.model))
    assert all(difference(value, made[name]) < 1e-6 for name, value in wanted.items())


def test_the_first_of_what_is_alike_stands_for_the_others() -> None:
    rows = np.array([[2.0, 4.0], [0.0, 0.0], [1.0, 2.0], [-1.0, -2.0], [3.0, 6.0]])
    ids, factor = clusters(np.zeros((5, 1), np.int64), rows, 1e-6)
    assert ids.tolist() == [0, 1, 0, 3, 0]
    assert factor.tolist() == [1.0, 1.0, 0.5, 1.0, 1.5]


def test_a_column_of_values_is_a_multiple_behind_the_attention_as_well() -> None:
    """The probabilities mix positions, not columns; what they multiply differs from head to head."""
    net = Net(seed=5)
    x = net.input([2, 7, 6], "x")
    q, k, v = (net.rng.standard_normal((6, 3, 4)) for _ in range(3))
    v[:, :, 3] = 0.37 * v[:, :, 1]
    v[:, 2] = v[:, 1]  # heads with equal values, but other probabilities
    queries, keys, values = (
        net.add("Einsum", x, net.const(w.astype(np.float32)), equation="bsd,dhk->bhsk") for w in (q, k, v)
    )
    mixed = net.add("Softmax", net.add("Einsum", queries, keys, equation="bhik,bhjk->bhij"), axis=-1)
    mixed = net.add("Einsum", mixed, values, equation="bhij,bhjk->bhik")
    net.output(net.add("Einsum", mixed, net.weight(3, 4, 6, scale=0.3), equation="bhik,hkd->bid"))
    model = net.model()
    found = shrink_model(load(model))
    assert [(part.cause, part.units) for part in found.removed] == [("multiple", 1)]
    wanted, made = run(model), run(to_proto(found.model))
    assert all(difference(value, made[name]) < 1e-6 for name, value in wanted.items())


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_strided_layer_takes_over_every_tap(op: str) -> None:
    """At one place a transposed convolution with strides reads some taps of its kernel only."""
    net = Net(seed=4)
    x = net.input([2, 3, 5, 5], "x")
    weight = net.rng.standard_normal((6, 3, 3, 3)).astype(np.float32)
    weight[4] = 2 * weight[1]
    y = net.add("Relu", net.add("Conv", x, net.const(weight), pads=[1, 1, 1, 1]))
    kernel = net.weight(*((6, 4) if op == "ConvTranspose" else (4, 6)), 4, 4)
    net.output(net.add(op, y, kernel, strides=[2, 2], pads=[1, 1, 1, 1]))
    model = net.model()
    found = shrink_model(load(model))
    assert [(part.cause, part.positions) for part in found.removed] == [("multiple", (4,))]
    wanted, made = run(model), run(to_proto(found.model))
    assert all(difference(value, made[name]) < 1e-6 for name, value in wanted.items())


@pytest.mark.parametrize("reader", ["ReduceMean", "MatMul"])
def test_what_is_added_at_every_position_hides_no_multiple(reader: str) -> None:
    """Each position adds other numbers, of which one channel's are multiples of another's."""
    net = Net(seed=4)
    weight, positions = net.rng.standard_normal((5, 6)), net.rng.standard_normal((4, 6))
    weight[:, 2], positions[:, 2] = 0.37 * weight[:, 4], 0.37 * positions[:, 4]
    made = net.add("MatMul", net.input([2, 4, 5], "x"), net.const(weight.astype(np.float32)))
    made = net.add("Add", made, net.const(positions.astype(np.float32)))
    if reader == "ReduceMean":
        made = net.add("ReduceMean", made, axes=[1], keepdims=0)
    net.output(net.add("MatMul", made, net.weight(6, 3)))
    model = net.model()
    found = shrink_model(load(model))
    assert [(part.cause, part.units) for part in found.removed] == [("multiple", 1)]
    wanted, small = run(model), run(to_proto(found.model))
    assert all(difference(value, small[name]) < 1e-6 for name, value in wanted.items())
