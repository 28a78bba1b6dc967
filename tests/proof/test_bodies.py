"""Layers inside of bodies are compared like any others, and count for the strength of a proof."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.model import load, protos
from onnxprune.proof import in_place
from tests.graphs.branches import in_branches
from tests.graphs.net import Net, prune
from tests.model.test_control_flow import into, model, two_branches, weight


def layers(seed: int) -> onnx.ModelProto:
    net = Net(17, seed=seed)
    x = net.add("Relu", net.add("MatMul", net.input([6, 16]), net.weight(16, 24, name="w1")))
    x = net.add("Relu", net.add("MatMul", x, net.weight(24, 20, name="w2")))
    net.output(net.add("Softmax", net.add("MatMul", x, net.weight(20, 4, name="w3", scale=1e3)), axis=1), [6, 4])
    return net.proto()


def deep() -> onnx.ModelProto:
    """A branch in a branch, whose weights have the same names as those of the other."""
    proto = model(
        """(float[5, 4] x, bool c, bool d) => (float[5, 3] y) {
          h = MatMul(x, w1)
          m = If (c) <
            then_branch = then () => (float[5, 8] t) {
              t = If (d) <
                then_branch = a () => (float[5, 8] ta) { p = MatMul(h, v)  q = Relu(p)  ta = MatMul(q, u) },
                else_branch = b () => (float[5, 8] tb) { p = MatMul(h, v)  q = Tanh(p)  tb = MatMul(q, u) }
              >
            },
            else_branch = other () => (float[5, 8] e) { e = Relu(h) }
          >
          y = MatMul(m, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3)),
    )
    into(proto, "t", "then_branch", weight("v", 8, 6), weight("u", 6, 8))
    return into(proto, "t", "else_branch", weight("v", 8, 12), weight("u", 12, 8))


def spoiled(proto: onnx.ModelProto, name: str, place: int, change: Callable[[np.ndarray], None]) -> onnx.ModelProto:
    """`proto` with the weight `name` changed, in the graph that is the `place`-th to have one."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(proto)
    found = [t for graph in protos.graphs(wrong.graph) for t in graph.initializer if t.name == name]
    value = numpy_helper.to_array(found[place]).copy()
    change(value)
    found[place].CopyFrom(numpy_helper.from_array(value, name))
    return wrong


def scale_largest(value: np.ndarray) -> None:
    value.reshape(-1)[np.abs(value).argmax()] *= 1.5


def swap_rows(value: np.ndarray) -> None:
    value[[0, 1]] = value[[1, 0]]


BRANCHED = {
    "saturated": (in_branches(layers(0), layers(1)), ("w1", "w2", "w3")),
    "nested": (deep(), ("v", "u")),
}


@pytest.mark.parametrize("name", BRANCHED)
def test_weights_of_either_branch_count_for_the_strength(name: str) -> None:
    verdict = prune(BRANCHED[name][0]).verdict
    assert verdict is not None
    assert verdict.strength is not None
    assert (verdict.strength.noticed, verdict.strength.tried) == (verdict.strength.groups,) * 2
    assert len(verdict.inside) >= 2 * len(BRANCHED[name][1])


@pytest.mark.parametrize("change", [scale_largest, swap_rows])
@pytest.mark.parametrize(("name", "weight_name"), [(n, w) for n, (_, names) in BRANCHED.items() for w in names])
def test_a_wrong_weight_of_a_branch_is_refused_by_the_layer_that_reads_it(
    name: str, weight_name: str, change: Callable[[np.ndarray], None]
) -> None:
    """In either branch, though one of them is not taken and the end may be saturated."""
    proto = BRANCHED[name][0]
    result = onnxprune.prune(proto, 0.5)
    for place in (0, 1):
        wrong = spoiled(result.model, weight_name, place, change)
        verdict = onnxprune.verify(proto, wrong, result.plan)
        assert not verdict.ok
        assert "MatMul" in verdict.problem
        assert "differs from the masked original" in verdict.problem, verdict.problem
        assert len(verdict.wrong) == 1


def test_a_branch_that_is_always_taken_is_looked_into() -> None:
    net = layers(0)
    proto = in_branches(net, layers(1))
    value = proto.graph.input.pop()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), value.name))
    result = onnxprune.prune(proto, 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert len(verdict.inside) == 3
    assert verdict.strength is not None
    assert verdict.strength.noticed == verdict.strength.groups == 2


def test_the_flat_models_have_the_names_of_the_trace() -> None:
    """Also where an added tensor has a name that the flat original gave to another."""
    outcome = prune(two_branches())
    flat = in_place.as_traced(outcome.groups, outcome.model)
    names = {o for n in outcome.groups.tracing.model.proto.graph.node for o in n.output if n.op_type == "MatMul"}
    assert names == {o for n in flat.proto.graph.node for o in n.output if n.op_type == "MatMul"}
    stored = {t.name for t in outcome.groups.tracing.model.proto.graph.initializer}
    assert stored == {t.name for t in flat.proto.graph.initializer}
    other = onnx.ModelProto()
    other.CopyFrom(outcome.model.proto)
    other.graph.node.add(op_type="Identity", input=["x"], output=["a_1"])
    again = in_place.as_traced(outcome.groups, load(other))
    made = [o for n in again.proto.graph.node for o in n.output]
    assert len(made) == len(set(made))
