"""Quantised models as a whole: importance, zeros, storage and proofs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune import api, criteria
from onnxprune.model import Model, load, save
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs.net import Net, array_of, group_of, prune, run, shapes_of
from tests.tracing.rules.test_quantized import (
    FLOAT8,
    IMAGE,
    INT4,
    MS,
    UINT4,
    conv,
    nbits,
    numbers,
    product,
    quantised,
    scalars,
    scales,
    weight,
)

# --- what the numbers mean ---------------------------------------------------------------------------------------


def stored_and_real(kind: str) -> tuple[Net, Net]:
    """A network with stored weights, and the same one with the real weights that they stand for."""
    nets = Net(21), Net(21)
    rng = np.random.default_rng(3)
    first, second = (rng.integers(-100, 101, s).astype(np.int8) for s in ((5, 12), (12, 4)))
    scale = rng.uniform(0.001, 0.1, 12).astype(np.float32)
    bias = rng.integers(-99, 99, 12).astype(np.int32)
    for index, net in enumerate(nets):
        x = net.input([2, 5])
        if index:
            y = net.add("MatMul", x, net.const(first * scale, "w_1"))
            y = net.add("Add", y, net.const((bias * scale * 0.05).astype(np.float32), "b"))
        elif kind == "qdq":
            w = net.add("DequantizeLinear", net.const(first, "w_1"), net.const(scale), axis=1)
            b = net.add("DequantizeLinear", net.const(bias, "b"), net.const(scale * np.float32(0.05)), axis=0)
            y = net.add("Add", net.add("MatMul", x, w), b)
        elif kind == "gemm":
            x, (a, zero) = quantised(net, x, 0.05)
            given = [net.const(first, "w_1"), net.const(scale), net.const(np.zeros(12, np.int8)), net.const(bias, "b")]
            y = net.add(
                "DequantizeLinear", net.add("QGemm", x, a, zero, *given, *scalars(net), domain=MS), *scalars(net)
            )
        else:
            x, a, zero = net.add("DynamicQuantizeLinear", x, outputs=3)
            y = net.cast(net.add("MatMulInteger", x, net.const(first, "w_1"), zero), TensorProto.FLOAT)
            y = net.add("Mul", y, net.add("Mul", a, net.const(scale)))
            y = net.add("Add", y, net.const((bias * scale * 0.05).astype(np.float32), "b"))
        y = net.add("MatMul", net.add("Relu", y), net.const(second.astype(np.float32) * 0.01, "w_2"))
        net.output(y)
    return nets


@pytest.mark.parametrize("kind", ["qdq", "gemm", "dynamic"])
def test_importance_is_that_of_the_real_values(kind: str) -> None:
    wanted, found = [], []
    for net, scores in zip(stored_and_real(kind), (found, wanted), strict=True):
        groups = api.trace(net.proto())
        group = group_of(groups, "w_1", 1)
        assert group is not None
        scores.extend(criteria.score(groups, "l1")[group.classes])
    extra = np.array(found) - np.array(wanted)
    # A scale that a Mul applies is a weight of its own: at most 0.1.
    assert (extra >= -1e-4).all() and (extra <= (0.1 if kind == "dynamic" else 1e-4)).all()


def test_packed_weights_are_unpacked_for_their_importance() -> None:
    net = Net(21)
    nbits(4, "packed", flat=True)(net, net.input([2, 5, 80]))
    groups = api.trace(net.proto())
    stored = {n: array_of(groups.model, n) for n in ("c_w", "c_scale", "c_zero")}
    low_and_high = np.stack([stored["c_w"] & 15, stored["c_w"] >> 4], -1).reshape(6, 80).astype(float)
    zeros = np.stack([stored["c_zero"].reshape(6, 3) & 15, stored["c_zero"].reshape(6, 3) >> 4], -1).reshape(6, 6)
    real = (low_and_high - np.repeat(zeros[:, :5], 16, 1)) * np.repeat(stored["c_scale"].reshape(6, 5), 16, 1)
    np.testing.assert_allclose(groups.tracing.weight_value("c_w").reshape(6, 80), real, rtol=1e-6)
    unit, inputs, outputs = np.eye(80, dtype=np.float32), Net(21), real.T
    x = inputs.input([80, 80])
    weights = [inputs.const(stored[n], n) for n in ("c_w", "c_scale", "c_zero")]
    inputs.output(inputs.add("MatMulNBits", x, *weights, K=80, N=6, bits=4, block_size=16, domain=MS))
    np.testing.assert_allclose(
        next(iter(run(inputs.proto(), feeds={"x": unit}).values())), outputs, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("op", ["QLinearConv", "QLinearMatMul", "MatMulInteger"])
def test_what_goes_is_stored_as_zero(op: str, dtype: Any) -> None:
    """Kept in its size, a model computes what the smaller one does: zeros are zero points."""
    net, is_conv = Net(21), op == "QLinearConv"
    x = net.add("Relu", net.make(IMAGE if is_conv else (2, 5, 8), 1 if is_conv else 2))
    (conv(op, dtype=dtype) if is_conv else product(op, dtype=dtype))(net, x)
    model = load(net.proto())
    plan = api.make_plan(model)
    small = api.execute(model, plan).model
    zeroed = api.execute(model, plan, zero=True).model
    assert shapes_of(zeroed) == shapes_of(model)
    for name, value in run(small).items():
        np.testing.assert_allclose(run(zeroed)[name], value, atol=1e-5 * np.abs(value).max())
    before, after = array_of(model, "c_w"), array_of(zeroed, "c_w")
    assert set(after[after != before].tolist()) == {131 if dtype is np.uint8 else 0}


@pytest.mark.parametrize(("bits", "zeros"), [(4, "none"), (4, "packed"), (4, "float"), (2, "packed"), (8, "packed")])
def test_zeros_of_packed_weights(bits: int, zeros: str) -> None:
    net = Net(21)
    nbits(bits, zeros)(net, net.add("Relu", net.make((2, 5, 80), 2)))
    model = load(net.proto())
    plan = api.make_plan(model)
    zeroed = api.execute(model, plan, zero=True).model
    for name, value in run(api.execute(model, plan).model).items():
        np.testing.assert_allclose(run(zeroed)[name], value, atol=1e-5 * np.abs(value).max())
    removed = ~plan.masks(model)["c_w"]
    real = api.trace(zeroed).tracing.weight_value("c_w").reshape(6, 5, -1)
    assert not real[removed[..., 0]].any()
    assert real[~removed[..., 0]].any(axis=-1).all()


def test_a_last_block_that_is_not_full() -> None:
    net = Net(21)
    nbits(4, "packed", columns=70)(net, net.make((2, 5, 70), 2))
    outcome = prune(net.proto(), ratio=0.5)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert group.units == 5
    node = next(n for n in outcome.model.proto.graph.node if n.op_type == "MatMulNBits")
    attrs = {a.name: a.i for a in node.attribute}
    assert shapes_of(outcome.model)["c_w"] == (3, 3, 8)
    assert attrs["N"] == 3
    assert attrs["K"] == shapes_of(outcome.model)["w_in"][1]
    assert attrs["K"] in (48, 38)


# --- storage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [INT4, UINT4, FLOAT8, np.int8])
def test_external_data(dtype: Any, tmp_path: Any) -> None:
    """Packed elements on disk are unpacked, sliced and packed again."""
    net = Net(21)
    x = net.make((2, 5, 96), 2)
    w = numbers(net, 96, 70, dtype=dtype, name="c_w", most=7, zero=7 if dtype is UINT4 else 0)
    net.read(net.add("MatMul", x, net.add("DequantizeLinear", w, scales(net, 70), axis=1)), 2)
    save(load(net.proto()), tmp_path / "model.onnx", external=True)
    inside, outside = prune(net.proto(), 0.3), prune(tmp_path / "model.onnx", 0.3)
    assert outside.verdict is not None
    assert outside.verdict.ok, outside.verdict.problem
    save(outside.model, tmp_path / "small.onnx")
    found, wanted = load(tmp_path / "small.onnx"), inside.model
    assert found.external
    assert found.initializers["c_w"].data_type == wanted.initializers["c_w"].data_type
    assert shapes_of(found)["c_w"] == (68, 49)
    np.testing.assert_array_equal(found.array("c_w"), wanted.array("c_w"))
    kept = outside.plan.masks(net.proto())["c_w"]
    np.testing.assert_array_equal(wanted.array("c_w").ravel(), load(net.proto()).array("c_w")[kept])


def test_bytes_and_parameters_are_counted() -> None:
    net = Net(21)
    weight(INT4, most=7)(net, net.make((2, 5, 8), 2))
    outcome = prune(net.proto())
    # w_in, c_w, c_scale, c_zero, w_out
    assert outcome.before.params == 3 * 8 + 8 * 6 + 6 + 6 + 6 * 4
    assert outcome.after.params == 3 * 4 + 4 * 3 + 3 + 3 + 3 * 4
    assert outcome.before.size == 4 * (3 * 8 + 6 + 6 * 4) + (8 * 6 + 6) // 2
    assert outcome.after.size == 4 * (3 * 4 + 3 + 3 * 4) + 4 * 3 // 2 + 2


# --- proofs ------------------------------------------------------------------------------------------------------


def integers(net: Net) -> onnx.ModelProto:
    """uint8 activations times int8 weights, of sizes that ONNX Runtime may add up with saturation."""
    x = net.make((8, 64), 1)
    for size in (64, 32, 16):
        x, _, zero = net.add("DynamicQuantizeLinear", x, outputs=3)
        w = numbers(net, net.probe(x).shape[1], size, most=127)
        x = net.add("Mul", net.cast(net.add("MatMulInteger", x, w, zero), TensorProto.FLOAT), scales(net, unit=1e-3))
    net.output(x)
    return net.proto()


def test_saturation_does_not_disturb_the_proof() -> None:
    outcome = prune(integers(Net(21)))
    assert outcome.rolled_back == ()
    assert outcome.verdict is not None
    assert outcome.verdict.error < 1e-6


def deep(net: Net) -> onnx.ModelProto:
    """Many layers that round to steps: sums in another order come out a step apart now and then."""
    x = net.input([4, 96, 8, 8])
    for _ in range(8):
        given = scalars(net, 0.05, np.int8(3))
        x = net.add("DequantizeLinear", net.add("QuantizeLinear", x, *given), *given)
        w = net.add("DequantizeLinear", numbers(net, 96, 96, 3, 3, most=127), net.const(np.float32(5e-4)))
        x = net.add("Relu", net.add("Conv", x, w, pads=[1, 1, 1, 1]))
    net.output(x)
    return net.proto()


def test_rounding_to_steps_does_not_disturb_the_proof() -> None:
    outcome = prune(deep(Net(21)))
    assert outcome.rolled_back == ()
    assert outcome.verdict is not None
    assert outcome.verdict.error < 1e-5
    assert "outputs that amplify rounding from the layers before" in outcome.verdict.checks
    assert max(outcome.verdict.inside.values()) < 1e-5


@pytest.mark.parametrize("make", [integers, deep])
def test_a_mistake_in_a_quantised_model_is_found(make: Any) -> None:
    """One weight that is off by a few steps, of thousands."""
    model = load(make(Net(21)))
    plan = api.make_plan(model)
    small = api.execute(model, plan).model
    assert api.prove(model, small, plan).ok
    proto = onnx.ModelProto()
    proto.CopyFrom(small.proto)
    stored = [t for t in proto.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1][1]
    value = array_of(proto, stored.name).copy()
    value.reshape(-1)[7] ^= 64
    stored.CopyFrom(onnx.numpy_helper.from_array(value, stored.name))
    assert not api.prove(model, Model(proto), plan).ok


def test_the_runtime_quantises_nothing_by_itself() -> None:
    """A float weight between quantised activations stays as it is written."""
    net = Net(17)
    x, given = quantised(net, net.input([2, 3, 4, 4]))
    y = net.add("ConvTranspose", net.add("DequantizeLinear", x, *given), net.weight(3, 1, 1, 1, name="w"), group=3)
    y = net.add("DequantizeLinear", net.add("QuantizeLinear", y, *given), *given)
    net.output(y)
    proto = net.proto()
    proto.graph.output.append(onnx.helper.make_tensor_value_info(net.nodes[2].output[0], TensorProto.FLOAT, None))
    proto.graph.output.append(onnx.helper.make_tensor_value_info(net.nodes[1].output[0], TensorProto.FLOAT, None))
    _, made, source = run(proto).values()
    np.testing.assert_allclose(made, source * array_of(proto, "w").reshape(1, 3, 1, 1), rtol=1e-6)


def test_a_layer_counts_its_weight_and_bias() -> None:
    net = Net(21)
    conv("QLinearConv")(net, net.make(IMAGE, 1))
    outcome = prune(net.proto())
    layers = [next(x for x in c.layers if x.op == "QLinearConv") for c in (outcome.before, outcome.after)]
    assert [(x.weight, x.params) for x in layers] == [("c_w", 6 * 8 * 9 + 6), ("c_w", 3 * 4 * 9 + 3)]
    assert [x.macs for x in layers] == [2 * 5 * 4 * 6 * 8 * 9, 2 * 5 * 4 * 3 * 4 * 9]


@pytest.mark.parametrize(("count", "block"), [(3, 2), (4, 3), (4, 5)])
def test_blocks_that_do_not_fit_are_a_barrier(count: int, block: int) -> None:
    net = Net(21)
    x = net.make((2, 5, 8), 2)
    net.output(net.add("DequantizeLinear", net.cast(x, TensorProto.INT8), scales(net, 2, 5, count), axis=2,
                       block_size=block), [2, 5, 8])  # fmt: skip
    groups = api.trace(load(net.proto(), check=False))
    assert group_of(groups, "w_in", 1) is None
    assert any("blocks of" in b.reason or "positions" in b.reason for b in groups.barriers)


def test_bytes_are_fed_in_their_whole_range() -> None:
    net = Net(21)
    x = net.input([64, 64], dtype=TensorProto.INT8)
    net.read(net.add("DequantizeLinear", x, net.const(np.float32(0.1))), 1)
    groups = api.trace(net.proto())
    value = random_feeds(groups.model, groups.static, np.random.default_rng(0))["x"]
    assert (value.dtype, value.min(), value.max()) == (np.int8, -128, 127)
