"""Straight-through gradients of quantised operators: what they compute, and the slope over many steps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting
from tests.graphs.fused_cases import STEP, ZERO, quantized_cases
from tests.graphs.node_cases import NodeCase

ONE = Setting(threads=1)
# Operator -> slot of its first quantised input, and of the scale of its output (None where the output is a float).
SLOTS = {
    "QLinearConv": (0, 6),
    "QLinearMatMul": (0, 6),
    "QLinearAdd": (0, 6),
    "QLinearMul": (0, 6),
    "QLinearConcat": (2, 0),
    "QLinearWhere": (1, 7),
    "QGemm": (0, 7),
    "MatMulIntegerToFloat": (0, None),
    "DynamicQuantizeMatMul": (None, None),
}
ONE_INPUT = (0, 3)
# Steps of the input over which a difference is taken: rounding is a small part of it.
FAR = 12


def _model(case: NodeCase) -> tuple[Model, np.ndarray]:
    """The operator behind a quantiser of the weight "x" and in front of a dequantiser; and how far "x" is moved."""
    slot, end = SLOTS.get(case.node.op_type, ONE_INPUT)
    # Without instructions for it, the runtime adds pairs of products in 16 bits: half of the weights fit.
    values = {
        n: v // 2 if v.dtype == np.int8 and v.ndim > 1 else v
        for n, v in zip(case.node.input, map(np.asarray, case.values), strict=True)
    }
    nodes, last = [], "y"
    if slot is None:
        x, step = values.pop("in0"), np.float32(0.02)
        nodes.append(helper.make_node("Identity", ["x"], ["in0"]))
    else:
        name = case.node.input[slot]
        scale, zero = (2, 4) if case.node.op_type == "MatMulIntegerToFloat" else (slot + 1, slot + 2)
        step = case.values[scale]
        steps = np.clip(values.pop(name).astype(np.float32), 40, 215)  # nothing saturates, or crosses a corner
        steps = np.where(np.abs(steps - 128) < 16, 150, steps).astype(np.float32)
        x = (steps - case.values[zero]) * step
        nodes.append(helper.make_node("QuantizeLinear", ["x", f"in{scale}", f"in{zero}"], [name]))
    node = onnx.NodeProto()
    node.CopyFrom(case.node)
    node.output[0] = "y"
    nodes.append(node)
    if end is not None and end < len(case.values):
        nodes.append(helper.make_node("DequantizeLinear", ["y", f"in{end}", f"in{end + 1}"], ["real"]))
        last = "real"
    graph = helper.make_graph(
        nodes,
        "quantised",
        [],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in {**values, "x": x}.items() if n],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return Model(helper.make_model(graph, opset_imports=imports, ir_version=10)), step


@pytest.mark.parametrize("case", list(quantized_cases()), ids=lambda case: case.name)
def test_straight_through(case: NodeCase) -> None:
    """The outputs are the operator's to a step, and the gradient is the slope over many steps."""
    model, step = _model(case)
    graph = build_vjp(model, {}, parameters=["x"])
    (target,) = graph.targets
    shape, kind = graph.targets[target]
    rng = np.random.default_rng(0)
    weights = {target: rng.standard_normal(shape).astype(kind)}
    direction = np.sign(rng.standard_normal(graph.parameters["x"].shape)).astype(np.float32) * FAR * step
    with GradientSession(graph, ONE) as session:
        found = session.evaluate(weights, {})
        moved = [session.loss(weights, {"x": graph.parameters["x"] + s * direction}) for s in (1.0, -1.0)]
    slope, measured = float((found.gradients["x"] * direction).sum()), (moved[0] - moved[1]) / 2
    scale = float(np.abs(found.gradients["x"] * direction).sum())
    assert abs(slope - measured) <= 0.05 * scale
    with Session(model, threads=1, optimised=False) as original, Session(Model(graph.model), threads=1) as trained:
        wanted = original.run({})[0]
        fed = {n: v for n, v in {**weights, **graph.parameters}.items() if n in trained.inputs}
        result = trained.run(fed, list(graph.outputs.values()))[0]
    steps = {float(v) for v in case.values if isinstance(v, np.ndarray) and v.dtype == np.float32 and v.size == 1}
    assert np.abs(result - wanted).max() <= max(steps, default=0.0) * 1.01 + 1e-4


def _chain(nodes: list[onnx.NodeProto], values: dict[str, np.ndarray]) -> Model:
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in values.items()],
    )
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def _gradients(model: Model, a: np.ndarray, names: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    graph = build_vjp(model, {"a": a}, parameters=names)
    (target,) = graph.targets
    dy = np.random.default_rng(3).standard_normal(graph.targets[target][0]).astype(np.float32)
    with GradientSession(graph, ONE) as session:
        return dict(session.evaluate({"a": a, target: dy}, {}).gradients), dy


def test_learned_step_sizes() -> None:
    """Inside of the range y = s round(x / s): dy / ds = round(x / s) - x / s; beyond, the bound (Esser et al. 2020)."""
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32) * 4
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"], axis=1),
        helper.make_node("Mul", ["r", "a"], ["y"]),
    ]
    s = np.array([0.1, 0.02, 0.05, 0.04, 0.03], np.float32)
    model = _chain(nodes, {"x": x, "s": s, "z": np.zeros(5, np.int8)})
    found, dy = _gradients(model, np.ones((6, 5), np.float32), ["x", "s"])
    steps = x / s
    inside = (steps >= -128.5) & (steps <= 127.5)
    assert 0 < inside.mean() < 1
    assert np.allclose(found["x"], dy * inside, atol=1e-6)
    wanted = (dy * (np.clip(np.round(steps), -128, 127) - inside * steps)).sum(0)
    assert np.allclose(found["s"], wanted, rtol=1e-3, atol=1e-3)


def test_weights_of_four_bits_in_blocks_are_frozen_and_let_gradients_through() -> None:
    int4 = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    rng = np.random.default_rng(0)
    w, s = rng.integers(-8, 8, (8, 3)).astype(np.int8), rng.random((2, 3)).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["r"], axis=0, block_size=4),
        helper.make_node("Mul", ["a", "g"], ["b"]),
        helper.make_node("MatMul", ["b", "r"], ["y"]),
    ]
    a, g = rng.standard_normal((5, 8)).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    model = _chain(nodes, {"w": w.astype(int4), "s": s, "g": g})
    found, dy = _gradients(model, a, ["g", "s"])
    real = w * np.repeat(s, 4, 0)
    assert np.allclose(found["g"], (a * (dy @ real.T)).sum(0), atol=1e-4)
    by_weight = (a * g).T @ dy
    assert np.allclose(found["s"], (by_weight * w).reshape(2, 4, 3).sum(1), atol=1e-3)


def test_dynamic_quantisation_passes_gradients() -> None:
    """x -> DynamicQuantizeLinear -> MatMulInteger -> times both scales: the gradient is that of the product."""
    rng = np.random.default_rng(0)
    w = rng.integers(0, 256, (8, 3)).astype(np.uint8)
    nodes = [
        helper.make_node("Mul", ["a", "g"], ["x"]),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w", "qz", "wz"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["qs", "ws"], ["scale"]),
        helper.make_node("Mul", ["f", "scale"], ["y"]),
    ]
    g, a = np.ones(8, np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    values = {"w": w, "wz": np.asarray(ZERO), "ws": np.asarray(STEP), "g": g}
    found, dy = _gradients(_chain(nodes, values), a, ["g"])
    real = (w.astype(np.float32) - float(ZERO)) * STEP
    # The scale follows the largest number, and with it the rounding of all the others: no part of the gradient.
    assert np.allclose(found["g"], (a * (dy @ real.T)).sum(0), rtol=2e-2, atol=0.2)
