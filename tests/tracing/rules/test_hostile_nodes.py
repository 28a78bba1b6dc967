"""Nodes that fit no definition are barriers with a reason, whatever their rules do about them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.errors import GoalMissed
from onnxprune.tracing import Edit, NodeView
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules import all_rules, registry
from onnxprune.tracing.rules.ask import CONTRADICTION
from tests.graphs import hostile_nodes
from tests.graphs.net import Net, prune, reasons_for
from tests.graphs.sandwich import Case, build
from tests.tracing.rules import test_fused, test_fused_attention, test_quantized

CASES: list[Case] = [
    *test_fused.CASES,
    *test_fused_attention.CASES,
    *(c for c in test_quantized.CASES if c.domain),
]
RULES = Path(registry.__file__).parent
ATTRIBUTES = sorted({n for f in RULES.glob("*.py") for n in re.findall(r'attrs(?:\.get\(|\[)"(\w+)"', f.read_text())})
# Of the variants of every case, one in so many; the step is coprime to the numbers of variants of an input.
STEP = 17


def examine(case: Case, step: int) -> int:
    proto = build(case, max(case.since, min(case.until, 17))).proto()
    index = next(i for i, node in enumerate(proto.graph.node) if node.op_type == case.op)
    chosen = list(hostile_nodes.variants(proto, index))[len(str(case)) % step :: step]
    for name, damaged in chosen:
        try:
            hostile_nodes.survives(damaged)
        except Exception as error:
            raise AssertionError(f"{case}: {name}") from error
    return len(chosen)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_damaged_nodes(case: Case) -> None:
    assert examine(case, STEP) > 1


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_damage(case: Case) -> None:
    assert examine(case, 1) > 40


@pytest.mark.parametrize("seed", range(4))
def test_wild_nodes(seed: int) -> None:
    rng, rules = random.Random(seed), list(all_rules())
    for _ in range(150):
        rule = rng.choice([r for r in rules if r.domain] if rng.random() < 0.7 else rules)
        version = max(7, min(rule.until, 24, rng.choice((17, 24, rule.since))))
        proto = hostile_nodes.wild(rng, rule.op, rule.domain, version, rng.sample(ATTRIBUTES, 8))
        hostile_nodes.survives(proto)


# --- what the reasons say ------------------------------------------------------------------------------------


def attention(op: str = "MultiHeadAttention", inputs: int = 3, **attrs: Any) -> onnx.ModelProto:
    net = Net()
    made = net.make((1, 5, 8), 2)
    y = net.add(op, *[made] * inputs, domain="com.microsoft", **attrs)
    net.output(net.add("MatMul", y, net.weight(8, 3)), [1, 5, 3], TensorProto.FLOAT)
    return net.proto()


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (attention(num_heads=3), "8 positions are not 3 heads"),
        (attention(), "8 positions are not 0 heads"),
        (attention(num_heads="four"), "attribute 'num_heads' is 'four', not a whole number"),
        (attention(num_heads=1 << 62), "8 positions are not"),
        (attention("GroupQueryAttention", num_heads=4, kv_num_heads=-2), "are not -2 heads"),
        (attention("Attention", inputs=1, num_heads=2), "input 1 is missing"),
        (attention("FusedMatMul", inputs=1), "input 1 is missing"),
        (attention("Attention", qkv_hidden_sizes=[1 << 62] * 3, num_heads=2), CONTRADICTION),
    ],
)
def test_reasons(proto: onnx.ModelProto, reason: str) -> None:
    found = reasons_for(api.trace(proto), "w_in", 1)
    assert any(reason in text for text in found), found


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (0,), (3,)])
def test_total_length_of_any_shape(shape: Sequence[int]) -> None:
    """The length of a cache is a number, however many axes hold it."""
    net = Net()
    q, k, v = (net.add("MatMul", net.input([1, 1, 8]), net.weight(8, n)) for n in (32, 16, 16))
    past = [net.input([1, 2, 5, 8]) for _ in range(2)]
    lengths = net.const(np.array([5], np.int32)), net.const(np.full(shape, 6, np.int32))
    made = net.add(
        *("GroupQueryAttention", q, k, v, *past, *lengths),
        outputs=3,
        domain="com.microsoft",
        num_heads=4,
        kv_num_heads=2,
    )
    for name in made:
        net.output(name, ["a", "b", "c"] if name == made[0] else ["a", "b", "c", "d"], TensorProto.FLOAT)
    assert hostile_nodes.survives(net.proto()) is not None


def test_only_barriers_in_a_balance() -> None:
    """A graph without any label: input, norm, output."""
    net = Net(19)
    x = net.input([1, 4, 2])
    y = net.add("GroupNormalization", x, net.input([4]), net.input([4]), num_groups=2)
    net.output(y, [1, 4, 2], TensorProto.FLOAT)
    groups = hostile_nodes.survives(net.proto())
    assert groups is not None
    assert groups.groups == ()


# --- bodies --------------------------------------------------------------------------------------------------


def value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


BODY = helper.make_graph(
    [helper.make_node("Add", ["s", "i"], ["so"]), helper.make_node("Identity", ["so"], ["o"])],
    "body",
    [value("s", 2, 2), value("i", 2, 2)],
    [value("so", 2, 2), value("o", 2, 2)],
)
STEPS = helper.make_graph(
    [helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Identity", ["s"], ["so"])],
    "body",
    [value("n", kind=TensorProto.INT64), value("go", kind=TensorProto.BOOL), value("s", 2, 2)],
    [value("more", kind=TensorProto.BOOL), value("so", 2, 2)],
)
BRANCH = helper.make_graph([helper.make_node("Identity", ["xs"], ["t"])], "branch", [], [value("t", 3, 2, 2)])
NO_FIT = "do not fit its bodies"
BODIES = [
    ("Scan", ["s0", "xs"], 2, {"body": BODY, "num_scan_inputs": 1, "scan_input_axes": [3]}, "has no axis 3"),
    ("Scan", ["s0", "xs"], 2, {"body": BODY, "num_scan_inputs": 1, "scan_input_axes": [-4]}, "has no axis -4"),
    ("Scan", ["s0", "xs"], 2, {"body": BODY, "num_scan_inputs": 1, "scan_input_axes": [0, 0]}, NO_FIT),
    ("Scan", ["s0", "xs"], 2, {"body": BODY, "num_scan_inputs": 1, "scan_output_axes": [0, 0]}, NO_FIT),
    ("Scan", ["s0", "xs", "xs"], 2, {"body": BODY, "num_scan_inputs": 2}, NO_FIT),
    ("Scan", ["s0", "xs"], 2, {"body": BODY, "num_scan_inputs": 3}, NO_FIT),
    ("Scan", ["s0", "xs"], 2, {"body": BODY, "num_scan_inputs": -1}, NO_FIT),
    ("Scan", ["s0", "xs"], 1, {"body": BODY, "num_scan_inputs": 1}, NO_FIT),
    ("Loop", ["", "c", "xs", "xs"], 2, {"body": STEPS}, NO_FIT),
    ("Loop", ["", "c", "xs"], 3, {"body": STEPS}, NO_FIT),
    ("Loop", ["", "c", "xs", "s0"], 1, {"body": STEPS}, NO_FIT),
    ("If", ["c"], 2, {"then_branch": BRANCH, "else_branch": BRANCH}, NO_FIT),
]


@pytest.mark.parametrize(("op", "inputs", "outputs", "attrs", "reason"), BODIES)
def test_bodies_that_do_not_fit(op: str, inputs: list[str], outputs: int, attrs: dict[str, Any], reason: str) -> None:
    """`xs` is made by a layer, which must stay whole, and the model comes through."""
    made = [f"out{i}" for i in range(outputs)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xs"]), helper.make_node("Identity", ["xs"], ["y"])]
    nodes.insert(1, helper.make_node(op, inputs, made, **attrs))
    nodes += [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("MatMul", ["h", "w2"], ["z"])]
    weights = {"w": (2, 2), "w1": (2, 6), "w2": (6, 2)}
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", 3, 2, 2), value("s0", 2, 2)],
        [
            value("z", 3, 2, 2),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * (3 - i)) for i, name in enumerate(made)),
        ],
        [
            *(numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()),
            numpy_helper.from_array(np.array(True), "c"),
        ],
    )
    groups = hostile_nodes.survives(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9))
    assert groups is not None
    assert [("w1", 1), ("w2", 0)] in [[(m.tensor, m.axis) for m in g.members] for g in groups.groups]
    texts = {r.text for r in groups.tracing.ledger.reasons}
    assert any(reason in text for text in texts), texts


# --- rules of users ------------------------------------------------------------------------------------------


class Odd(Exception):
    """What nobody expects a rule to raise."""


@pytest.fixture
def own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", {k: list(v) for k, v in registry._RULES.items()})


def fail(*_: Any) -> Any:
    raise Odd("no idea")


def short(view: NodeView) -> list[Axes]:
    return [view.labels(0)[:1]]


def twice(view: NodeView) -> list[Axes]:
    return [tuple(np.concatenate([x, x]) for x in view.labels(0))]


@pytest.mark.usefixtures("own_rules")
@pytest.mark.parametrize(
    ("trace", "more", "reason"),
    [
        (fail, {}, "no idea"),
        (short, {}, "does not fit the inputs"),
        (twice, {}, "does not fit the inputs"),
        (lambda view: None, {}, CONTRADICTION),
        (lambda view: [view.labels(0)], {"contraction": fail}, "no idea"),
        (lambda view: [view.labels(0)], {"contraction": lambda view: [(5, 0)]}, "input 5 is missing"),
        (lambda view: [view.labels(0)], {"contraction": lambda view: [(0, 9)]}, CONTRADICTION),
    ],
)
def test_a_rule_that_fails_is_a_barrier(trace: Any, more: dict[str, Any], reason: str) -> None:
    registry.rule("Relu", **more)(trace)
    found = reasons_for(api.trace(between()), "w_in", 1)
    assert any(reason in text for text in found), found


def between() -> onnx.ModelProto:
    net = Net()
    net.read(net.add("Relu", net.make((2, 8), 1)), 1)
    net.read(net.add("Tanh", net.make((2, 8), 1, weight="w_other")), 1, weight="w_last")
    return net.proto()


@pytest.mark.usefixtures("own_rules")
@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"params": "70%"}, {"size": "80%"}])
def test_a_node_that_cannot_follow_rolls_its_group_back(options: dict[str, Any]) -> None:
    def resize(edit: Edit) -> None:
        raise Odd("no idea")

    registry.rule("Relu", resize=resize)(lambda view: [view.labels(0)])
    outcome = prune(between(), options.pop("ratio", None), **options)
    assert [(r.group, "cannot follow: no idea" in r.problem) for r in outcome.rolled_back] == [("w_in", True)]
    assert outcome.verdict is not None
    assert outcome.verdict.ok


@pytest.mark.usefixtures("own_rules")
def test_nothing_that_can_follow() -> None:
    registry.rule("Relu", "Tanh", resize=fail)(lambda view: [view.labels(0)])
    with pytest.raises(GoalMissed, match="no idea"):
        prune(between())
