"""What an exporter folded, shared or copied makes no difference to what a criterion sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune import api, criteria
from onnxprune.layers import Weights
from onnxprune.model import load
from onnxprune.tracing import trace
from tests.criteria.nets import DATA, at, batches, scored
from tests.graphs.net import Net, array_of, run


def normalised(op: str, *, bias: str = "", group: int = 1) -> onnx.ModelProto:
    """A layer with BatchNormalization behind, and a layer that reads it; `bias`: "", "slot" or "add"."""
    net = Net(seed=7)
    rng = np.random.default_rng(3)
    spatial = op in ("Conv", "ConvTranspose")
    x = net.input(["n", 6, 5, 5] if spatial else ["n", 6])
    shape = {"Conv": (8, 6 // group, 3, 3), "ConvTranspose": (6, 8 // group, 3, 3), "Gemm": (8, 6), "MatMul": (6, 8)}
    weight = net.weight(*shape[op], name="w")
    given = [net.const(rng.standard_normal(8).astype(np.float32), "w_bias")] if bias else []
    attrs = {"group": group} if spatial else {"transB": 1} if op == "Gemm" else {}
    h = net.add(op, x, weight, *(given if bias == "slot" else ()), **attrs)
    if bias == "add":
        h = net.add("Add", h, *given)
    lines = {"scale": rng.uniform(-2, 2, 8), "shift": rng.standard_normal(8), "mean": rng.standard_normal(8)}
    lines["var"] = rng.uniform(0.01, 9, 8)
    given = [net.const(v.astype(np.float32), n) for n, v in lines.items()]
    h = net.add("Relu", net.add("BatchNormalization", h, *given, epsilon=1e-3), name="h")
    last = net.add("Conv" if spatial else "MatMul", h, net.weight(*((4, 8, 1, 1) if spatial else (8, 4)), name="w_out"))
    net.output(last)
    return net.proto()


def folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same function without the BatchNormalization, as exporters fold it."""
    scale, shift, mean, var = (array_of(proto, n).astype(np.float64) for n in ("scale", "shift", "mean", "var"))
    names = {t.name for t in proto.graph.initializer}
    factor = scale / np.sqrt(var + np.float32(1e-3))
    weight, bias = array_of(proto, "w"), array_of(proto, "w_bias") if "w_bias" in names else np.zeros(8)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    first, *rest = copy.graph.node
    attrs = {a.name: onnx.helper.get_attribute_value(a) for a in first.attribute}
    if first.op_type == "Conv":
        new = weight * factor[:, None, None, None]
    elif first.op_type == "ConvTranspose":
        group = attrs["group"]
        new = np.stack([w * factor.reshape(group, -1)[i // (6 // group)][:, None, None] for i, w in enumerate(weight)])
    else:
        new = weight * (factor[:, None] if attrs.get("transB") else factor)
    tail = [n for n in rest if n.op_type not in ("BatchNormalization", "Add")]
    head = onnx.helper.make_node(first.op_type, [*first.input[:2], "w_bias"], ["folded"], **attrs)
    nodes = [head]
    if first.op_type == "MatMul":
        nodes = [
            onnx.helper.make_node("MatMul", first.input[:2], ["product"]),
            onnx.helper.make_node("Add", ["product", "w_bias"], ["folded"]),
        ]
    tail[0].input[0] = "folded"
    weights = {"w": new, "w_bias": (bias - mean) * factor + shift, "w_out": array_of(proto, "w_out")}
    arrays = [onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    graph = onnx.helper.make_graph([*nodes, *tail], "folded", proto.graph.input, proto.graph.output, arrays)
    return onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


FORMS = [
    ("Conv", {}), ("Conv", {"bias": "slot"}), ("Conv", {"bias": "slot", "group": 2}), ("ConvTranspose", {}),
    ("ConvTranspose", {"bias": "slot", "group": 2}), ("Gemm", {"bias": "slot"}), ("Gemm", {}),
    ("MatMul", {}), ("MatMul", {"bias": "add"}),
]  # fmt: skip


@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "fpgm", *DATA, "ensemble:l2,fpgm,wanda"])
@pytest.mark.parametrize(
    ("op", "form"), FORMS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_folded_or_not_is_the_same(op: str, form: dict[str, Any], criterion: str) -> None:
    apart = normalised(op, **form)
    joined = folded(apart)
    np.testing.assert_allclose(*(next(iter(run(m).values())) for m in (apart, joined)), rtol=1e-3, atol=1e-4)
    runs = batches(shape=(6, 5, 5) if "Conv" in op else (6,))
    got = [scored(m, criterion, "w_out", 1 if "Conv" in op else 0, runs=runs) for m in (apart, joined)]
    np.testing.assert_allclose(*got, rtol=2e-4)
    assert np.ptp(got[0]) > 0.05 * abs(got[0]).max()


def residual() -> onnx.ModelProto:
    """Two residual blocks with a depthwise convolution in each, a BatchNormalization behind every layer."""
    net, rng = Net(seed=11), np.random.default_rng(11)

    def layer(x: str, *shape: int, **attrs: Any) -> str:
        lines = [rng.uniform(0.1, 2, shape[0]), *rng.standard_normal((2, shape[0])), rng.uniform(0.05, 4, shape[0])]
        h = net.add("Conv", x, net.weight(*shape), pads=[shape[-1] // 2] * 4, **attrs)
        return net.add("BatchNormalization", h, *(net.const(v.astype(np.float32)) for v in lines))

    x = net.add("Relu", layer(net.input(["n", 3, 6, 6]), 12, 3, 3, 3))
    for _ in range(2):
        h = net.add("Relu", layer(x, 16, 12, 1, 1))
        h = net.add("Relu", layer(h, 16, 1, 3, 3, group=16))
        x = net.add("Relu", net.add("Add", layer(h, 12, 16, 1, 1), x))
    net.output(net.add("MatMul", net.add("Flatten", x), net.weight(432, 5)), ["n", 5])
    return net.proto()


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "fpgm", *DATA])
def test_the_runtime_folds_and_the_same_units_go(criterion: str, allocation: str, tmp_path: Path) -> None:
    apart, path = residual(), str(tmp_path / "folded.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = path
    ort.InferenceSession(apart.SerializeToString(), options)
    joined = onnx.load(path)
    assert not any(n.op_type == "BatchNormalization" for n in joined.graph.node)
    plans = [
        onnxprune.make_plan(m, 0.4, criterion=criterion, allocation=allocation, data=batches()) for m in (apart, joined)
    ]
    first, second = ([step.remove for step in plan.steps] for plan in plans)
    assert first == second and sum(map(len, first)) >= 15


def test_what_cannot_be_folded_counts_as_it_is() -> None:
    """A convolution that something else reads before it is normalised."""
    net = Net()
    h = net.add("Conv", net.input(["n", 6, 5, 5]), net.weight(8, 6, 1, 1, name="w"), name="h")
    lines = [net.const(np.full(8, v, np.float32) + np.arange(8, dtype=np.float32)) for v in (1, 2, 3, 4)]
    made = net.add("Add", net.add("BatchNormalization", h, *lines), h)
    net.output(net.add("Conv", made, net.weight(4, 8, 1, 1, name="w_out")))
    proto = net.proto()
    check_unfolded(proto)


def check_unfolded(proto: onnx.ModelProto) -> None:
    """The weights in front of a normalisation and those behind it count as they are stored."""
    out = array_of(proto, "w_out").reshape(-1, 8)
    held = [[*array_of(proto, "w")[i].ravel(), *out[:, i]] for i in range(8)]
    wanted = [np.square(parts).sum() for parts in held]
    np.testing.assert_allclose(scored(proto, "l2", "w", 0), np.sqrt(wanted), rtol=1e-5)


def test_a_bias_along_another_axis_is_not_folded() -> None:
    """As long as there are channels, but added along the last axis."""
    net = Net()
    h = net.add("Conv", net.input(["n", 3, 8, 8]), net.weight(8, 3, 1, 1, name="w"))
    h = net.add("Add", h, net.weight(8, name="b"))
    lines = [net.const(np.full(8, v, np.float32) + np.arange(8, dtype=np.float32)) for v in (1, 2, 3, 4)]
    net.output(net.add("Conv", net.add("BatchNormalization", h, *lines), net.weight(4, 8, 1, 1, name="w_out")))
    proto = net.proto()
    check_unfolded(proto)


@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "fpgm"])
def test_shared_or_stored_twice_is_the_same(criterion: str) -> None:
    def siamese(*, twice: bool) -> onnx.ModelProto:
        net = Net()
        x = net.input([2, 6])
        first = net.weight(6, 8, name="w")
        second = net.const(array_of(net.proto([]), "w"), "w_copy") if twice else first
        left, right = net.add("Relu", net.add("MatMul", x, first)), net.add("Tanh", net.add("MatMul", x, second))
        net.read(net.add("Add", left, right), 1)
        return net.proto()

    got = [scored(siamese(twice=twice), criterion, "w_out", 0) for twice in (False, True)]
    np.testing.assert_allclose(got[0], got[1], rtol=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm"])
def test_a_shared_weight_acts_as_each_use_makes_it(criterion: str) -> None:
    """One weight, two BatchNormalizations: as two folded weights."""

    def double(*, fold: bool) -> onnx.ModelProto:
        net = Net()
        x, first = net.input(["n", 6]), net.weight(6, 8, name="w")
        weight, made = array_of(net.proto([]), "w"), []
        for index in (1, 2):
            scale, shift, mean, var = (np.arange(8, dtype=np.float32) * i % 5 + index for i in (1, 2, 3, 4))
            factor = scale / np.sqrt(var)
            if fold:
                product = net.add("MatMul", x, net.const((weight * factor).astype(np.float32)))
                made.append(net.add("Add", product, net.const((shift - mean * factor).astype(np.float32))))
            else:
                lines = [net.const(v) for v in (scale, shift, mean, var)]
                made.append(net.add("BatchNormalization", net.add("MatMul", x, first), *lines, epsilon=0.0))
        net.output(net.add("MatMul", net.add("Add", *made), net.weight(8, 4, name="w_out")), ["n", 4])
        return net.proto()

    got = [scored(double(fold=fold), criterion, "w_out", 0) for fold in (True, False)]
    np.testing.assert_allclose(*got, rtol=1e-5)


def test_weights_that_are_computed() -> None:
    """No criterion leaves units without a score where a layer has no weight of its own (weight normalisation)."""
    net = Net()
    weight = net.add("Mul", net.weight(8, 6, 1, 1, name="w"), net.weight(8, 1, 1, 1, name="g"))
    h = net.add("Relu", net.add("Conv", net.input(["n", 6, 5, 5]), weight))
    net.output(net.add("Conv", h, net.weight(4, 8, 1, 1, name="w_out")), ["n", 4, 5, 5])
    proto, norm = net.proto(), scored(net.proto(), "l2", "w", 0, aggregate="sum")
    for name in ("fpgm", "bn-scale"):
        np.testing.assert_array_equal(scored(proto, name, "w", 0), norm)


def test_quantised_weights_are_found_behind_their_scale() -> None:
    net = Net()
    rng = np.random.default_rng(0)
    given = [net.const(rng.integers(-100, 100, (8, 6, 1, 1)).astype(np.int8), "w"), net.const(np.float32(0.02))]
    h = net.add("Relu", net.add("Conv", net.input(["n", 6, 5, 5]), net.add("DequantizeLinear", *given)))
    net.output(net.add("Conv", h, net.weight(4, 8, 1, 1, name="w_out")), ["n", 4, 5, 5])
    groups = api.trace(net.proto())
    filters = array_of(net.proto(), "w").astype(float).reshape(8, 6) * np.float32(0.02)
    wanted = [sum(np.linalg.norm(a - b) for b in filters) for a in filters]
    np.testing.assert_allclose(at(groups, criteria.score(groups, "fpgm"), "w", 0), wanted, rtol=1e-4)


def test_what_is_no_contraction_has_no_bias() -> None:
    """The third input of an operator in front of a normalisation may be anything, without a single entry too."""
    net = Net()
    h = net.add("Conv", net.input([2, 6, 5, 5]), net.weight(8, 6, 1, 1, name="w"))
    none = net.const(np.zeros(0, np.float32))
    h = net.add("Resize", h, none, none, net.ints(2, 8, 10, 10))
    lines = [net.const(np.full(8, v, np.float32) + np.arange(8, dtype=np.float32)) for v in (1, 2, 3, 4)]
    net.output(net.add("Conv", net.add("BatchNormalization", h, *lines), net.weight(4, 8, 1, 1, name="w_out")))
    proto = net.proto()
    check_unfolded(proto)


@pytest.mark.parametrize("copies", [False, True])
def test_many_weights_at_the_same_positions_are_compared_in_linear_time(copies):
    """Heads that read one tensor: every weight is read a few times, not once for every other."""
    net = Net()
    x = net.add("MatMul", net.input(["N", 8]), net.weight(8, 8))
    value = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
    for number in range(200):
        one = value if copies else value + np.float32(number)
        net.output(net.add("MatMul", x, net.const(one.astype(np.float32))), ["N", 2])
    weights = Weights(trace(load(net.model())))
    read, value_of = [], weights.value
    weights.value = lambda part: (read.append(part), value_of(part))[1]
    found = list(weights.parts())
    assert len(found) == (2 if copies else 201) and len(read) <= 2 * 201


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_zeros_of_both_signs_are_the_same_value(dtype):
    net = Net(dtype=dtype)
    x = net.add("MatMul", net.input(["N", 4]), net.weight(4, 4))
    for zero in (0.0, -0.0):
        value = np.full((4, 2), 3, dtype)
        value[0, 0] = zero
        net.output(net.add("MatMul", x, net.const(value)), ["N", 2])
    assert len(list(Weights(trace(load(net.model()))).parts())) == 2


def test_a_weight_without_elements_has_no_part() -> None:
    """A constant that stands for a cache in one branch lies beside weights that hold something."""
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w"))
    both = net.add("Concat", h, net.const(np.zeros((0, 6), np.float32)), axis=0)
    net.output(net.add("MatMul", both, net.weight(6, 3, name="out")))
    groups = trace(load(net.proto()))
    parts = list(Weights(groups).parts())
    assert parts and all(value.size for _, _, value in parts)
    assert np.isfinite(criteria.score(groups, "l2")).all()
