"""Tensors that are called like what is added to a model, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import Names, control_flow, load, protos, unsaturated
from onnxprune.model.shapes.infer import infer
from onnxprune.proof.masked import masked
from onnxprune.proof.prove import check
from onnxprune.proof.quantized import unrounded
from onnxprune.recovery import RecoveryOptions as Recovery
from onnxprune.rewriting.rewrite import rewrite
from tests.graphs.net import Net, prune, run
from tests.model.test_control_flow import model, two_branches, weight


def names_of(proto: onnx.ModelProto) -> set[str]:
    """All names of tensors and nodes."""
    found: set[str] = set()
    for graph in protos.graphs(proto.graph):
        found |= {t.name for t in graph.initializer} | {n.name for n in graph.node}
        found |= {name for node in graph.node for name in (*node.input, *node.output)}
    return found - {""}


def renamed(proto: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """A copy in which a tensor has another name in every scope."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for graph in protos.graphs(copy.graph):
        for values in (graph.input, graph.output, graph.value_info, graph.initializer):
            for value in values:
                value.name = new if value.name == old else value.name
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
    return copy


def normed() -> onnx.ModelProto:
    """Channels that a norm mixes, a target that the graph computes, and constants that two layers share."""
    net = Net()
    x = net.input(["n", 5, 6], "x")
    y = net.add("LayerNormalization", net.add("MatMul", x, net.weight(6, 8, name="w1")), net.const([1.0] * 8, "ones"))
    rows = net.add("Gather", net.add("Shape", y), net.ints(0), axis=0)
    flat = net.add("Reshape", y, net.add("Concat", rows, net.ints(40), axis=0))
    z = net.add("MatMul", flat, net.weight(40, 8, name="w2"))
    z = net.add("Mul", z, "ones", name="b")
    net.output(net.add("MatMul", z, net.weight(8, 3, name="w3"), name="y"), ["n", 3])
    for tensor in net.weights:
        if tensor.name == "ones":
            tensor.CopyFrom(numpy_helper.from_array(np.ones(8, np.float32), "ones"))
    return net.proto()


def quantised() -> onnx.ModelProto:
    """Two layers with rounded activations between them."""
    net = Net()
    x = net.input(["n", 6], "x")
    scale, zero = net.const(np.float32(0.05), "scale"), net.const(np.uint8(7), "zero")
    y = net.add("MatMul", x, net.weight(6, 8, name="w1"))
    y = net.add("DequantizeLinear", net.add("QuantizeLinear", y, scale, zero, name="q"), scale, zero, name="b")
    net.output(net.add("MatMul", y, net.weight(8, 3, name="w2"), name="y"), ["n", 3])
    return net.proto()


def integers() -> onnx.ModelProto:
    """A product of bytes that would be added in pairs."""
    net = Net()
    x = net.input(["n", 6], "x", TensorProto.UINT8)
    made = net.add("MatMulInteger", x, net.const(net.rng.integers(-9, 9, (6, 8)).astype(np.int8), "b"))
    y = net.add("MatMul", net.cast(made, TensorProto.FLOAT), net.weight(8, 3, name="w2"), name="y")
    net.output(y, ["n", 3])
    return net.proto()


@pytest.mark.parametrize("build", [normed, quantised, integers, two_branches], ids=lambda build: build.__name__)
def test_a_tensor_may_be_called_like_any_that_is_added(build: Callable[[], onnx.ModelProto]) -> None:
    """Every name that a proof or a rewriting adds is given to a tensor of the model, one at a time."""
    proto = build()
    before = prune(proto)
    assert before.verdict is not None
    assert before.verdict.ok
    groups = before.groups
    away = before.plan.removed(groups)
    reference = masked(groups, away)
    added = names_of(before.model.proto) | names_of(reference.proto)
    dtypes = infer(load(proto)).dtypes
    for variant in (partial(unrounded, original=groups.model), unsaturated):
        added |= names_of(variant(reference, dtypes=dtypes).proto)
    for path in control_flow.open_branches(groups.tracing.model.proto.graph, groups.tracing.branch_taken):
        forced = control_flow.forced(reference, path)
        added |= names_of(forced.proto) if forced else set()
    added -= names_of(proto)
    assert added
    for name in sorted(added):
        outcome = prune(renamed(proto, "b", name))
        assert outcome.verdict is not None, name
        assert outcome.verdict.ok, (name, outcome.verdict.problem)
        assert not outcome.rolled_back, name


def test_a_bias_that_a_repair_adds_has_a_name_of_its_own() -> None:
    net = Net()
    y = net.add("Conv", net.input(["n", 3, 4, 4], "x"), net.weight(8, 3, 1, 1, name="w1"), name="y")
    net.output(net.add("Conv", net.add("Relu", y), net.weight(4, 8, 1, 1, name="w2"), name="z"), ["n", 4, 4, 4])
    data = [{"x": np.random.default_rng(i).standard_normal((2, 3, 4, 4)).astype(np.float32)} for i in range(16)]
    for proto in (net.proto(), renamed(net.proto(), "x", "z_bias")):
        given = [{proto.graph.input[0].name: feed["x"]} for feed in data]
        outcome = api.run(load(proto), Options(ratio=0.5), data=given, recovery=Recovery("bias"))
        onnx.checker.check_model(outcome.model.proto, full_check=True)
        assert run(outcome.model, feeds=given[0])["z"].shape == (2, 4, 4, 4)


def test_names_inside_of_a_function_do_not_meet_those_of_weights() -> None:
    """The inliner numbers the tensors of a function that is called twice."""
    for name in ("w", "t__1", "t__2"):
        body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
        function = helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
        proto = model(
            f"(float[N, 4] x) => (float[N, 3] y) {{ h = MatMul(x, {name})  y = MatMul(h, v) }}",
            *(weight("w", 4, 8), weight("v", 8, 3)),
        )
        proto.graph.initializer[0].name = name
        del proto.graph.node[:]
        proto.graph.node.extend(
            [
                helper.make_node("MatMul", ["x", name], ["h"]),
                helper.make_node("F", ["h"], ["i"], domain="local"),
                helper.make_node("F", ["i"], ["j"], domain="local"),
                helper.make_node("MatMul", ["j", "v"], ["y"]),
            ]
        )
        proto.functions.append(function)
        proto.opset_import.append(helper.make_opsetid("local", 1))
        outcome = prune(proto)
        assert outcome.verdict is not None
        assert outcome.verdict.ok, (name, outcome.verdict.problem)


def test_a_name_inside_of_a_body_is_taken() -> None:
    names = Names(two_branches().graph, ["other"])
    assert names.unique("b") == "b_1"
    assert names.unique("b") == "b_2"
    assert names.unique("other") == "other_1"
    assert names.unique("new") == "new"
    assert names.unique("new") == "new_1"


def test_proofs_of_one_cut_are_equal_under_any_names() -> None:
    first, second = (prune(proto) for proto in (normed(), renamed(normed(), "w1", "onnxprune_reference_mask")))
    for outcome in (first, second):
        away = outcome.plan.removed(outcome.groups)
        assert check(outcome.groups, away, rewrite(outcome.groups, away)).ok
    assert first.after == second.after or first.after.params == second.after.params
