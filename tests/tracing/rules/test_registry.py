"""The registry, and that every operator in it is tested."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from onnx import defs, helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

import onnxprune
from onnxprune import api
from onnxprune.errors import GoalMissed
from onnxprune.model.protos import QUANTIZING
from onnxprune.model.quantizers import QUANTIZERS
from onnxprune.tracing import through
from onnxprune.tracing.rules import all_rules, find
from onnxprune.tracing.rules import registry as rules
from tests.graphs.net import Net, group_of, prune, reasons_for, shapes_of
from tests.graphs.sandwich import Case, versions_of
from tests.tracing.rules import (
    test_attention,
    test_constants,
    test_contraction,
    test_control_flow,
    test_fused,
    test_fused_attention,
    test_index,
    test_layout,
    test_norm,
    test_pointwise,
    test_quantized,
    test_quantizers,
    test_recurrent,
    test_reduce,
    test_whole_axis,
)

FAMILIES = {
    "attention": test_attention,
    "control_flow": test_control_flow,
    "whole_axis": test_whole_axis,
    "contraction": test_contraction,
    "fused": test_fused,
    "fused_attention": test_fused_attention,
    "index": test_index,
    "layout": test_layout,
    "norm": test_norm,
    "pointwise": test_pointwise,
    "recurrent": test_recurrent,
    "quantized": test_quantized,
    "quantizers": test_quantizers,
    "reduce": test_reduce,
    "constants": test_constants,
}
CASES: list[Case] = [case for module in FAMILIES.values() for case in module.CASES]
NEWEST = 24
# The runtime has no implementation of these versions.
NOT_IN_RUNTIME = {("GlobalLpPool", 22), ("RoiAlign", 22), ("MaxRoiPool", 22)} | {
    (op, 22) for op in ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")
}
NOT_IN_RUNTIME |= {(op, 22) for op in ("DeformConv", "Det")}
# Newer than the runtime, or of another domain: proven by `tests.measure.operators` alone.
ELSEWHERE = {"BitCast", "CausalConvWithState", "LinearAttention", "SwiGLU"}
ELSEWHERE |= {r.op for r in all_rules() if r.domain == "ai.onnx.ml"}
# onnx's checker refuses these versions as deprecated; tested on their own where the runtime knows them.
DEPRECATED = {("GroupNormalization", 18), ("Upsample", 10), ("Scatter", 11)}


@functools.cache
def covered() -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = {}
    for case in CASES:
        found.setdefault((case.domain, case.op), set()).update(
            versions_of(case.op, case.since, case.until, case.domain)
        )
    return found


def test_every_rule_is_covered() -> None:
    rules = {(r.domain, r.op) for r in all_rules() if r.until >= 7 and r.op not in ELSEWHERE}
    assert rules - covered().keys() == {("com.microsoft", op) for op in test_fused.WITHOUT_KERNEL}


@pytest.mark.parametrize("op", sorted({r.op for r in all_rules() if r.until >= 7 and not r.domain} - ELSEWHERE))
def test_every_version_of_every_operator_is_tested(op: str) -> None:
    wanted = {(op, v) for v in versions_of(op, until=NEWEST)} - NOT_IN_RUNTIME - DEPRECATED
    assert {v for _, v in wanted} <= covered()["", op]


def test_cases_have_names_of_their_own() -> None:
    names = [str(case) for case in CASES]
    assert [n for n in set(names) if names.count(n) > 1] == []


def test_every_rule_is_of_an_operator_that_exists() -> None:
    known = {(s.domain, s.name) for s in defs.get_all_schemas_with_history()}
    written_by_the_runtime = {("", op) for op in ("SimplifiedLayerNormalization", "Affine", "Crop")}
    known |= {(s.domain, s.name) for s in get_all_operator_schema()}
    known |= {(domain, op) for domain in QUANTIZING for op in QUANTIZERS}
    assert {(r.domain, r.op) for r in all_rules()} <= known | written_by_the_runtime


def test_no_version_has_two_rules() -> None:
    ranges: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for rule in all_rules():
        ranges.setdefault((rule.domain, rule.op), []).append((rule.since, rule.until))
    for spans in ranges.values():
        spans.sort()
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


def test_a_rule_says_what_it_does() -> None:
    assert all(r.summary and not r.summary.endswith(".") for r in all_rules())
    assert {r.family for r in all_rules()} == {*FAMILIES, "blockwise", "scatter"}


def test_the_long_name_of_the_standard_domain() -> None:
    assert find("ai.onnx", "Relu", 17) is find("", "Relu", 17)


def test_another_domain_has_no_rule() -> None:
    assert find("com.example", "Relu", 17) is None


@pytest.fixture
def registry():
    """The registry, put back as it was."""
    before = {key: list(value) for key, value in rules._RULES.items()}
    yield rules
    rules._RULES.clear()
    rules._RULES.update(before)


def test_a_later_registration_wins_where_it_overlaps(registry) -> None:
    old = find("", "Relu", 17)

    @registry.rule("Relu", since=14)
    def other(view):
        """Another."""
        return [view.labels(0)]

    found = find("", "Relu", 17)
    assert found is not None
    assert found.trace is other
    assert found is not old


def unknown(domain: str = "com.example", **attrs) -> Net:
    net = Net(17)
    x = net.make((2, 5, 8), 2)
    x = net.add("Relu", x)
    y = net.add("Mystery", x, domain=domain, **attrs)
    x2 = net.add("MatMul", y, net.weight(8, 4, name="w_out"))
    net.output(x2, [2, 5, 4])
    return net


def test_an_unknown_operator_is_a_barrier() -> None:
    groups = api.trace(unknown().proto())
    assert group_of(groups, "w_in", 1) is None
    (reason,) = reasons_for(groups, "w_in", 1)
    assert reason.startswith("no rule for operator Mystery of domain com.example")
    assert group_of(groups, "w_out", 0) is None


def test_a_newer_opset_of_a_rule_that_ended(registry) -> None:
    """A rule with an end does not hold behind it."""

    @registry.rule("Relu", until=13)
    def old(view):
        """Old."""
        return [view.labels(0)]

    registry._RULES["", "Relu"] = [r for r in registry._RULES["", "Relu"] if r.trace is old]
    net = Net(17)
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    assert "no rule for operator Relu at opset 17" in reasons_for(api.trace(net.proto()), "w_in", 1)


@pytest.mark.parametrize(
    ("op", "outputs", "attrs"),
    [
        ("MaxPool", ["y", ""], {"kernel_shape": [1, 1]}),
        ("Dropout", ["y", ""], {}),
        ("LayerNormalization", ["y", "", "deviation"], {"axis": 1}),
    ],
)
def test_outputs_that_are_omitted(op: str, outputs: list[str], attrs: dict[str, object]) -> None:
    net = Net(17)
    given = [net.make((2, 8, 3, 3), 1)]
    if op == "LayerNormalization":
        given.append(net.weight(8, 3, 3))
    net.nodes.append(helper.make_node(op, given, outputs, **attrs))
    net.read("y", 1)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert shapes_of(outcome.model)["w_in"] == (3, 4)


def test_subgraphs_of_other_operators_are_barriers() -> None:
    """Those of If, Loop and Scan are traced: see test_flow."""
    net = Net(17)
    x = net.make((2, 5, 8), 2)
    weight = net.weight(8, name="captured")
    body = helper.make_graph(
        [helper.make_node("Mul", ["item", weight], ["scaled"])],
        "body",
        [helper.make_tensor_value_info("item", 1, [2, 5, 8])],
        [helper.make_tensor_value_info("scaled", 1, [2, 5, 8])],
    )
    items = net.add("SequenceMap", net.add("SequenceConstruct", net.add("Mul", x, weight)), body=body)
    net.read(net.add("ConcatFromSequence", items, axis=0), 2)
    groups = api.trace(net.proto())
    assert group_of(groups, "w_in", 1) is None
    assert group_of(groups, "captured", 0) is None
    assert any("subgraphs" in r for r in reasons_for(groups, "captured", 0))


# --- rules of users -----------------------------------------------------------------------------------------


def double(domain: str = "com.example") -> Net:
    """A custom operator, which a function of the model defines for the runtime."""
    net = Net(17)
    y = net.add("Double", net.make((2, 5, 8), 2), domain=domain)
    net.output(net.add("MatMul", y, net.weight(8, 4, name="w_out")), [2, 5, 4])
    return net


def test_a_rule_for_a_custom_operator(registry) -> None:
    """Registered through the public door, it opens what was locked (the runtime cannot run it, so no proof)."""
    assert group_of(api.trace(double().proto()), "w_in", 1) is None

    @onnxprune.register_rule("Double", domain="com.example")
    def double_rule(view):
        """Each position on its own."""
        return [view.labels(0)]

    # Without a schema nobody knows the shape behind it: the file says it.
    proto = double().proto()
    proto.graph.value_info.append(helper.make_tensor_value_info("double_2", 1, [2, 5, 8]))
    groups = api.trace(proto)
    group = group_of(groups, "w_in", 1)
    assert group is not None
    assert group.units == 8
    small = onnxprune.prune(proto, 0.5, verify=False).model
    assert shapes_of(small) == {"w_in": (3, 4), "w_out": (4, 4)}


def test_a_broken_rule_is_caught_and_rolled_back(registry) -> None:
    """Softmax along the labelled axis, as if it were position by position: wrong, and the proof says so."""

    @registry.rule("Softmax")
    def broken(view):
        """Wrong."""
        return [view.labels(0)]

    def net(also: bool) -> Net:
        made = Net(17)
        made.read(made.add("Softmax", made.make((2, 5, 8), 2), axis=-1), 2)
        if also:
            other = made.make((2, 5, 6), 2, weight="w_good")
            made.read(made.add("Relu", other), 2, weight="w_good_out")
        return made

    with pytest.raises(GoalMissed, match="every group failed its proof"):
        prune(net(False).proto())
    outcome = prune(net(True).proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    assert [r.group for r in outcome.rolled_back] == ["w_in"]
    assert "differs from the masked original" in outcome.rolled_back[0].problem
    shapes = shapes_of(outcome.model)
    assert shapes["w_in"] == (3, 8)
    assert shapes["w_good"] == (3, 3)
    assert [s.remove for s in outcome.plan.steps if s.group == "w_in"] == [()]


BROKEN = {
    # A mean over fewer positions is another mean.
    "ReduceMean": lambda view, through: through(view, [range(3)], [[0, 1, "one"]]),
    # Labels stay where they were while the axes move.
    "Transpose": lambda view, through: [tuple(view.labels(0))],
    # Later sums hold what was removed before them.
    "CumSum": lambda view, through: [view.labels(0)],
}


@pytest.mark.parametrize("op", BROKEN)
def test_rules_that_are_wrong_fail_their_proof(op: str, registry) -> None:
    net = Net(17)
    x = net.add("MatMul", net.input([2, 8, 3]), net.weight(3, 8, name="w_in"))
    if op == "ReduceMean":
        net.output(net.add("ReduceMean", x, axes=[2]))
    elif op == "Transpose":
        turned = net.add("Transpose", x, perm=[0, 2, 1])
        net.output(net.add("MatMul", turned, net.weight(8, 4, name="w_out")))
    else:
        net.read(net.add("CumSum", x, net.const(np.int64(2))), 2)
    body = BROKEN[op]

    @registry.rule(op)
    def broken(view):
        """Wrong."""
        return body(view, through)

    with pytest.raises(GoalMissed, match="every group failed its proof"):
        prune(net.proto())
