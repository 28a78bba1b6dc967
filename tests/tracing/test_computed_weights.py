"""Weights that the graph computes from stored ones: a removed unit is the channel, whatever makes its numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxprune
from onnxprune.model import load
from onnxprune.model.protos import MICROSOFT
from onnxprune.rewriting import Plan
from onnxprune.tracing.computed_weights import computed_value
from tests.graphs import two_judges
from tests.graphs.branches import in_branches
from tests.graphs.net import Net, prune, run, shapes_of

WIDTH = 12


def weight_norm(net: Net, a: int, b: int) -> str:
    w = net.weight(a, b)
    return net.add("Mul", net.weight(1, b), net.add("Div", w, net.add("ReduceL2", w, axes=[0])))


def standardised(net: Net, a: int, b: int) -> str:
    w = net.weight(a, b)
    centred = net.add("Sub", w, net.add("ReduceMean", w, axes=[0]))
    return net.add("Div", centred, net.add("Sqrt", net.add("ReduceMean", net.add("Mul", centred, centred), axes=[0])))


def standardised_by_norm(net: Net, a: int, b: int) -> str:
    rows = net.add("Reshape", net.weight(b, a), net.ints(1, b, -1))
    ones, zeros = net.const(np.ones(b, np.float32)), net.const(np.zeros(b, np.float32))
    normed = net.add("InstanceNormalization", rows, ones, zeros)
    return net.add("Transpose", net.add("Reshape", normed, net.ints(b, a)), perm=[1, 0])


def spectral(net: Net, a: int, b: int) -> str:
    w = net.weight(a, b)
    sigma = net.add("MatMul", net.add("MatMul", net.weight(a), w), net.weight(b))
    return net.add("Div", w, sigma)


def adapter(net: Net, a: int, b: int) -> str:
    return net.add("Add", net.weight(a, b), net.add("MatMul", net.weight(a, 2), net.weight(2, b)))


def einsum(net: Net, a: int, b: int) -> str:
    return net.add("Einsum", net.weight(3, a), net.weight(3, b), equation="ra,rb->ab")


def softmax(net: Net, a: int, b: int) -> str:
    return net.add("Softmax", net.add("Transpose", net.weight(b, a), perm=[1, 0]), axis=1)


def positive(net: Net, a: int, b: int) -> str:
    return net.add("Softplus", net.weight(a, b))


def shifted(net: Net, a: int, b: int) -> str:
    return net.add("Add", net.weight(a, b), net.const(np.float32(0.5)))


def cosine(net: Net, a: int, b: int) -> str:
    return net.add("LpNormalization", net.weight(a, b), axis=0)


def quantised_on_the_way(net: Net, a: int, b: int) -> str:
    scale, zero = net.const(np.float32(0.02)), net.const(np.int8(0))
    return net.add("DequantizeLinear", net.add("QuantizeLinear", cosine(net, a, b), scale, zero), scale, zero)


KINDS: dict[str, Callable[[Net, int, int], str]] = {
    f.__name__: f
    for f in (
        *(weight_norm, standardised, standardised_by_norm, spectral, adapter, einsum, softmax, positive, shifted),
        *(cosine, quantised_on_the_way),
    )
}


def chain(kind: str, activation: str = "Relu", seed: int = 0) -> onnx.ModelProto:
    """Three layers; the weights of all are computed, biases are stored."""
    net, make = Net(17, seed=seed), KINDS[kind]
    x = net.input(["batch", 6])
    for index, (a, b) in enumerate([(6, WIDTH), (WIDTH, WIDTH), (WIDTH, 3)]):
        x = net.add("Add", net.add("MatMul", x, make(net, a, b)), net.weight(b, name=f"bias{index}"))
        x = x if b == 3 else net.add(activation, x, name=f"hidden{index}")
    net.output(x, ["batch", 3])
    return net.proto()


def silenced(proto: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The original with the channels at zero, not the numbers: a product behind every activation."""
    masks, result = plan.masks(proto), onnx.ModelProto()
    result.CopyFrom(proto)
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        nodes.append(onnx.NodeProto())
        nodes[-1].CopyFrom(node)
        index = node.output[0].removeprefix("hidden")
        if index in ("0", "1"):
            nodes[-1].output[0] += "_all"
            keep = masks[f"bias{index}"].astype(np.float32)
            result.graph.initializer.append(onnx.numpy_helper.from_array(keep, f"keep{index}"))
            nodes.append(onnx.helper.make_node("Mul", [nodes[-1].output[0], f"keep{index}"], [node.output[0]]))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_unit_is_the_channel(kind: str, activation: str) -> None:
    proto = chain(kind, activation)
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok and not outcome.rolled_back
    assert [(s.exact, len(s.remove)) for s in outcome.plan.steps] == [(True, WIDTH // 2)] * 2
    wanted, found = run(silenced(proto, outcome.plan)), run(outcome.model)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * np.abs(value).max())
    assert two_judges.check(proto, outcome.plan)


@pytest.mark.parametrize("kind", KINDS)
def test_computed_weights_of_bodies_go_back_where_they_were_computed(kind: str) -> None:
    """Both branches give their tensors the same names: a weight that is folded stays in the scope of its name."""
    proto = in_branches(chain(kind), chain(kind, "Tanh", seed=1))
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok and not outcome.rolled_back
    assert [len(s.remove) for s in outcome.plan.steps] == [WIDTH // 2] * 4
    onnx.checker.check_model(outcome.model.proto, full_check=True)
    assert two_judges.check(proto, outcome.plan)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_carried_out_again(kind: str) -> None:
    proto = chain(kind)
    plan = Plan.from_json(prune(proto).plan.to_json())
    small = onnxprune.apply(proto, plan)
    assert onnxprune.verify(proto, small, plan).ok
    zeroed = onnxprune.apply(proto, plan, zero=True)
    onnx.checker.check_model(zeroed, full_check=True)
    masks = plan.masks(proto)
    assert {"bias0", "bias1"} <= masks.keys()
    named = {m["tensor"] for step in plan.steps for m in step.members}
    assert named <= {t.name for t in proto.graph.initializer} | {o for n in proto.graph.node for o in n.output}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_cut_stay_computed(kind: str) -> None:
    proto = chain(kind)
    names = [g.name for g in onnxprune.trace(proto).groups]
    half = onnxprune.prune(proto, 0.5, ratios={names[1]: 0.0})
    last = [node for node in proto.graph.node if node.op_type == "MatMul"][-1].input[1]
    assert last in {o for n in half.model.graph.node for o in n.output}


@pytest.mark.parametrize("criterion", ["l2", "l1", "fpgm", "lamp", "obs"])
def test_scores_are_those_of_the_weight_as_it_acts(criterion: str) -> None:
    proto = chain("weight_norm")
    data = {"x": np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32)}
    outcome = onnxprune.prune(proto, 0.5, criterion, data=data if criterion == "obs" else None)
    assert outcome.report.verdict.ok
    assert all(len(s.remove) == WIDTH // 2 for s in outcome.plan.steps)


def test_a_computed_weight_that_is_stored_elsewhere_as_well() -> None:
    """Its numbers are those of one layer, and the norm over them the weight of another."""
    net = Net(17)
    x = net.input([4, WIDTH])
    w = net.weight(WIDTH, WIDTH, name="w")
    y = net.add("Relu", net.add("MatMul", x, w))
    z = net.add("Relu", net.add("MatMul", y, net.add("Div", w, net.add("ReduceL2", w, axes=[0]))))
    net.output(net.add("MatMul", z, net.weight(WIDTH, 3)))
    proto = net.proto()
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok
    assert two_judges.check(proto, outcome.plan)
    assert shapes_of(outcome.model)["w"] == (WIDTH, WIDTH)


def test_models_come_out_byte_for_byte_where_nothing_goes() -> None:
    proto = chain("spectral")
    plan = Plan(())
    assert load(onnxprune.apply(proto, plan)).proto == proto


# --- weights made of whole numbers -------------------------------------------------------------------------------

# Numbers so large that two products of them exceed 16 bits, and their zero points.
LEFT, RIGHT, LEFT_ZERO, RIGHT_ZERO, INNER = (200, 256), (90, 128), 100, 20, 16
# What a step of each factor, and of a result that is rounded to steps, is worth.
FACTOR_STEP, RESULT_STEP = np.float32(1e-3), np.float32(1e-3)


def made_of_integers(op: str, net: Net, left: np.ndarray, right: np.ndarray) -> str:
    """The product of two stored matrices, uint8 and int8, in real numbers."""
    l_zero, r_zero = net.const(np.uint8(LEFT_ZERO)), net.const(np.int8(RIGHT_ZERO))
    step, result = net.const(FACTOR_STEP), (net.const(RESULT_STEP), net.const(np.uint8(0)))
    if op == "DynamicQuantizeMatMul":
        real = net.const((left.astype(np.float32) - LEFT_ZERO) * FACTOR_STEP)
        return net.add(op, real, net.const(right), step, r_zero, domain=MICROSOFT)
    (rows, _), columns = left.shape, right.shape[1]
    if "Conv" in op:
        factors = [net.const(left.reshape(rows, INNER, 1, 1)), net.const(right.T.reshape(columns, INNER, 1, 1).copy())]
    else:
        factors = [net.const(left), net.const(right)]
    if op.endswith("Integer"):
        made = net.cast(net.add(op, *factors, l_zero, r_zero), TensorProto.FLOAT)
        made = net.add("Mul", made, net.const(FACTOR_STEP**2))
    elif op == "MatMulIntegerToFloat":
        made = net.add(op, *factors, step, step, l_zero, r_zero, domain=MICROSOFT)
    else:
        given = [factors[0], step, l_zero, factors[1], step, r_zero]
        domain, bias = (MICROSOFT, [""]) if op == "QGemm" else ("", [])
        made = net.add("DequantizeLinear", net.add(op, *given, *bias, *result, domain=domain), *result)
    return net.add("Reshape", made, net.ints(rows, columns)) if "Conv" in op else made


@pytest.mark.parametrize(
    "op",
    [
        *("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"),
        *("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
    ],
)
def test_sums_of_bytes_that_make_a_weight_do_not_saturate(op: str) -> None:
    """Processors without VNNI add products of uint8 and int8 in pairs of 16 bits: no unit's numbers may be those."""
    net, rng, wanted = Net(17), np.random.default_rng(0), {}
    x = net.input(["batch", 6])
    for a, b in [(6, WIDTH), (WIDTH, WIDTH), (WIDTH, 3)]:
        left = rng.integers(*LEFT, (a, INNER)).astype(np.uint8)
        right = rng.integers(*RIGHT, (INNER, b)).astype(np.int8)
        weight = made_of_integers(op, net, left, right)
        wanted[weight] = (left.astype(float) - LEFT_ZERO) @ (right.astype(float) - RIGHT_ZERO) * FACTOR_STEP**2
        x = net.add("Relu", net.add("Add", net.add("MatMul", x, weight), net.weight(b)))
    net.output(x, ["batch", 3])
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert not outcome.rolled_back
    assert [len(s.remove) for s in outcome.plan.steps] == [WIDTH // 2] * 2
    for weight, value in wanted.items():
        np.testing.assert_allclose(outcome.groups.tracing.known_value(weight), value, atol=RESULT_STEP, rtol=0)


def test_optional_outputs_in_front_of_a_computed_weight() -> None:
    """An input and an output that are left out have the same empty name, and nothing leads from one to the other."""
    net = Net(17)
    hidden = net.add("RNN", net.input((2, 1, 3)), net.weight(1, 5, 3), net.weight(1, 5, 5), outputs=2, hidden_size=5)
    net.nodes[-1].output[0] = ""
    weight = net.weight(5, 4)
    clipped = net.add("Clip", weight, "", net.const(np.float32(0.1)))
    net.output(net.add("MatMul", hidden[1], clipped))
    found = computed_value(net.model(), clipped, {clipped: TensorProto.FLOAT})
    np.testing.assert_array_equal(found, np.minimum(net.model().array(weight), np.float32(0.1)))
