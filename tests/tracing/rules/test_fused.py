"""Labels through the operators that ONNX Runtime's optimisers write."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.model.shapes.infer import infer
from onnxprune.proof.masked import masked
from onnxprune.rewriting import Removal
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs.net import FLOAT, INT32, Net, group_of, prune, reasons_for, run, shapes_of
from tests.graphs.sandwich import Case, check_case, parameters
from tests.tracing.rules.test_contraction import KERNELS
from tests.tracing.rules.test_contraction import shape as image

MICROSOFT = "com.microsoft"


def fused(op: str, *weights: tuple[int, ...] | None, outputs: int = 1, **attrs: Any):
    """The operator with weights `c_0`, `c_1` ... behind `x`; None is an input that is not given."""

    def build(net: Net, x: str) -> Any:
        given = ["" if w is None else net.weight(*w, name=f"c_{i}", scale=0.6) for i, w in enumerate(weights)]
        return net.add(op, x, *given, domain=MICROSOFT, outputs=outputs, **attrs)

    return build


def skip_norm(op: str, skip: tuple[int, ...], *, bias: bool = False, total: bool = False):
    def build(net: Net, x: str) -> Any:
        """The skip comes from a weight; the sum goes on beside the norm."""
        given = [net.weight(*skip, name="skip", scale=1.0), net.weight(8, name="gamma", scale=0.5)]
        if op == "SkipLayerNormalization":
            given.append(net.weight(8, name="beta"))
        if bias:
            given.append(net.weight(8, name="bias"))
        if not total:
            return net.add(op, x, *given, domain=MICROSOFT, epsilon=1e-3)
        made = net.add(op, x, *given, domain=MICROSOFT, outputs=4)
        net.nodes[-1].output[1] = net.nodes[-1].output[2] = ""
        net.read(made[0], 2)
        net.read(made[3], 2, weight="w_sum")
        return []

    return build


def skip_norm_of_two(net: Net, x: str) -> str:
    skip = net.make((2, 5, 8), 2, weight="w_skip")
    return net.add("SkipLayerNormalization", x, skip, net.weight(8, name="gamma"), domain=MICROSOFT)


def embed_norm(*, kinds: bool = True, mask: bool = False, total: bool = False, places: bool = False):
    def build(net: Net, x: str) -> Any:
        """Tables in the place of `x`, which is added behind."""
        # Ids that are constants would make the whole a weight that the graph computes.
        ids = net.input((2, 5), name="ids", dtype=INT32)
        kind = net.input((2, 5), name="kinds", dtype=INT32) if kinds else ""
        tables = [net.weight(11, 8, name="word"), net.weight(6, 8, name="place")]
        tables.append(net.weight(2, 8, name="kind") if kinds else "")
        given = [ids, kind, *tables, net.weight(8, name="gamma"), net.weight(8, name="beta")]
        given.append(net.const(np.ones((2, 5), np.int32)) if mask else "")
        given.append(net.const(np.arange(5, dtype=np.int32)[None].repeat(2, 0)) if places else "")
        made = net.add("EmbedLayerNormalization", *given, domain=MICROSOFT, outputs=3 if total else 2)
        added = net.add("Add", x, made[0])
        return [added, net.add("Add", x, made[2])] if total else added

    return build


def product(*sizes: int, first: bool = False, op: str = "FusedMatMul", **attrs: Any):
    def build(net: Net, x: str) -> str:
        weight = net.weight(*sizes, name="w")
        return net.add(op, *([weight, x] if first else [x, weight]), domain=MICROSOFT, **attrs)

    return build


def heads(net: Net, x: str) -> str:
    """Attention as three products, the scale and the transposition in the first."""
    key, value = (net.make((2, 5, 8), 2, weight=w) for w in ("w_k", "w_v"))
    q, k, v = (
        net.add("Transpose", net.add("Reshape", t, net.ints(0, 0, 4, 2)), perm=[0, 2, 1, 3]) for t in (x, key, value)
    )
    scores = net.add("FusedMatMul", q, k, domain=MICROSOFT, alpha=0.7, transB=1)
    y = net.add("FusedMatMul", net.add("Softmax", scores, axis=-1), v, domain=MICROSOFT)
    return net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, 8))


def gemm(c: bool = True, **attrs: Any):
    def build(net: Net, x: str) -> str:
        weight = net.weight(*((6, 8) if attrs.get("transB") else (8, 6)), name="w")
        given = [net.weight(6, name="bias")] if c else []
        return net.add("FusedGemm", x, weight, *given, domain=MICROSOFT, **attrs)

    return build


def conv(spatial: int = 2, group: int = 1, added: str = "", activation: str = "Relu", **attrs: Any):
    def build(net: Net, x: str) -> str:
        given = [net.weight(6, 8 // group, *KERNELS[spatial], name="w"), net.weight(6, name="bias")]
        if added == "weight":
            given.append(net.weight(2, 6, 5, 4, name="z", scale=1.0))
        elif added:
            given.append(net.make((2, 6, 5, 4), 1, weight="w_z"))
        more = {"group": group} if group > 1 else {}
        return net.add("FusedConv", x, *given, domain=MICROSOFT, activation=activation, **more, **attrs)

    return build


def experts(gate: str = "", k: int = 2, bias: bool = True, flat: bool = False, **attrs: Any):
    def build(net: Net, x: str) -> str:
        """Four experts of six positions; a product of `x` routes."""
        rows = 2 if gate in ("interleaved", "halves") else 1
        router = net.add(
            "MatMul", x if flat else net.add("Reshape", x, net.ints(-1, 8)), net.weight(8, 4, name="route")
        )
        given = [net.weight(4, rows * 6, 8, name="first"), net.weight(4, rows * 6, name="first_bias") if bias else ""]
        given += [net.weight(4, 8, 6, name="second"), net.weight(4, 8, name="second_bias") if bias else ""]
        if gate == "third":
            given += [net.weight(4, 6, 8, name="third"), net.weight(4, 6, name="third_bias") if bias else ""]
        return net.add("MoE", x, router, *given, domain=MICROSOFT, k=k, **attrs)

    return build


def quantized_experts(net: Net, x: str) -> str:
    """Four experts in bytes of two positions each."""

    def packed(*shape: int, name: str) -> str:
        return net.const(net.rng.integers(0, 256, shape).astype(np.uint8), name)

    def scales(*shape: int, name: str) -> str:
        return net.const((net.rng.random(shape) * 0.05).astype(np.float32), name)

    router = net.add("MatMul", x, net.weight(32, 4, name="route"))
    given = [packed(4, 48, 16, name="first"), scales(4, 48, name="first_scales"), ""]
    given += [packed(4, 32, 24, name="second"), scales(4, 32, name="second_scales")]
    return net.add("QMoE", x, router, *given, domain=MICROSOFT, k=2, expert_weight_bits=4, activation_type="relu")


ROWS: dict[str, Any] = {"domain": MICROSOFT, "since": 17}
MADE: dict[tuple[str, int], int | str] = {("w_out", 0): 6}
FRESH = {("w", 1): 6, **MADE}
SUM = {("skip", 1): 8, ("gamma", 0): 8}
EXPERTS = {("first", 0): 4, ("second", 0): 4, ("route", 1): 4, ("first_bias", 0): 4, ("second_bias", 0): 4}
WIDTH = {("first", 1): 6, ("first_bias", 1): 6, ("second", 2): 6}
SKIP, SIMPLE = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"

CASES = [
    *(Case(op, "fused", fused(op), **ROWS) for op in ("Gelu", "QuickGelu")),
    Case("QuickGelu", "alpha", fused("QuickGelu", alpha=1.3), **ROWS),
    *(Case(op, "bias", fused(op, (8,)), others={("c_0", 0): 8}, **ROWS) for op in ("BiasGelu", "FastGelu")),
    Case("FastGelu", "plain", fused("FastGelu"), **ROWS),
    *(
        Case(op, f"skip-{name}", skip_norm(op, skip), exact=False, others={("gamma", 0): 8}, **ROWS)
        for op in (SKIP, SIMPLE)
        for name, skip in (("2d", (5, 8)), ("for-all", (1, 5, 8)), ("3d", (2, 5, 8)))
    ),
    *(
        Case(
            *(op, "sum", skip_norm(op, (5, 8), bias=True, total=True)),
            out=None,
            exact=False,
            others=SUM | {("bias", 0): 8, ("w_out", 0): 8, ("w_sum", 0): 8},
            **ROWS,
        )
        for op in (SKIP, SIMPLE)
    ),
    Case(SKIP, "two", skip_norm_of_two, exact=False, others={("w_skip", 1): 8}, **ROWS),
    *(
        Case("EmbedLayerNormalization", name, build, exact=False, others={("word", 1): 8, ("place", 1): 8}, **ROWS)
        for name, build in (
            ("", embed_norm()),
            ("two-tables", embed_norm(kinds=False)),
            ("mask", embed_norm(mask=True)),
            ("places", embed_norm(places=True)),
        )
    ),
    Case(
        "EmbedLayerNormalization",
        "sum",
        embed_norm(total=True),
        exact=False,
        others={("kind", 1): 8, ("gamma", 0): 8, ("word", 0): "positions are looked up"},
        **ROWS,
    ),
    Case("FusedMatMul", "", product(8, 6, alpha=0.3), others=FRESH, **ROWS),
    Case("FusedMatMul", "trans-b", product(6, 8, transB=1), others={("w", 0): 6, **MADE}, **ROWS),
    Case("FusedMatMul", "trans-a", product(5, 6, transA=1), axis=1, out=2, units=5, others=FRESH, **ROWS),
    Case("FusedMatMul", "outer", product(8, 6), axis=1, out=1, units=5, others={("w_out", 0): 5}, **ROWS),
    Case("FusedMatMul", "trans-a-outer", product(5, 6, transA=1), out=1, others={("w_out", 0): 8}, **ROWS),
    Case(
        "FusedMatMul",
        "first",
        product(6, 5, first=True, transA=0),
        axis=1,
        out=1,
        units=5,
        others={("w", 0): 6},
        **ROWS,
    ),
    Case(
        *("FusedMatMul", "batch-a", product(4, 8, 6, transBatchA=1), (5, 4, 8)),
        others={("w", 2): 6, **MADE},
        **ROWS,
    ),
    Case(
        *("FusedMatMul", "batch-a-trans-a", product(4, 5, 6, transBatchA=1, transA=1), (5, 4, 8), 0),
        units=5,
        others={("w", 2): 6, **MADE},
        **ROWS,
    ),
    Case("FusedMatMul", "batch-b", product(8, 2, 6, transBatchB=1), others={("w", 2): 6, **MADE}, **ROWS),
    Case(
        *("FusedMatMul", "batch-b-trans-b", product(6, 2, 8, transBatchB=1, transB=1)),
        others={("w", 0): 6, **MADE},
        **ROWS,
    ),
    Case(
        *("FusedMatMul", "heads", heads),
        units=4,
        others={("w_k", 1): 4, ("w_v", 1): 4, ("w_out", 0): 4},
        **ROWS,
    ),
    Case("TransposeMatMul", "", product(6, 8, op="TransposeMatMul", transB=1), others={("w", 0): 6, **MADE}, **ROWS),
    *(
        Case(
            *("FusedGemm", str(activation), gemm(activation=activation), (5, 8), 1, 1),
            others=FRESH | {("bias", 0): 6},
            **ROWS,
        )
        for activation in ("Relu", "Sigmoid", "Tanh")
    ),
    Case("FusedGemm", "leaky", gemm(activation="LeakyRelu", activation_alpha=0.2), (5, 8), 1, 1, others=FRESH, **ROWS),
    Case("FusedGemm", "trans-b", gemm(False, transB=1, activation="Relu"), (5, 8), 1, 1, others=MADE, **ROWS),
    Case("FusedGemm", "trans-a", gemm(transA=1, activation="Relu"), (8, 5), 0, 1, others=FRESH, **ROWS),
    *(Case("FusedConv", f"{n}d", conv(n), image(n), 1, 1, others={("w", 0): 6, **MADE}, **ROWS) for n in KERNELS),
    Case("FusedConv", "leaky", conv(activation="LeakyRelu", activation_params=[0.2]), image(2), 1, 1, **ROWS),
    Case("FusedConv", "sum", conv(added="weight"), image(2), 1, 1, others=MADE | {("z", 1): 6}, **ROWS),
    Case("FusedConv", "sum-computed", conv(added="made"), image(2), 1, 1, others=MADE | {("w_z", 1): 6}, **ROWS),
    Case("FusedConv", "grouped", conv(group=2), image(2), 1, 1, 4, others={("w_out", 0): 3}, **ROWS),
    Case("FusedConv", "grouped-sum", conv(group=2, added="made"), image(2), 1, 1, 4, others={("w_z", 1): 3}, **ROWS),
    Case("MoE", "", experts(activation_type="relu"), exact=True, others=EXPERTS | WIDTH, **ROWS),
    Case("MoE", "gelu", experts(activation_type="gelu"), others=EXPERTS | WIDTH, **ROWS),
    Case("MoE", "plain", experts(bias=False, k=1), others={("first", 0): 4, ("first", 1): 6}, **ROWS),
    Case("MoE", "flat", experts(flat=True), (9, 8), 1, 1, others=EXPERTS | WIDTH, **ROWS),
    Case("MoE", "normalised", experts(normalize_routing_weights=1), others=EXPERTS | WIDTH, **ROWS),
    Case("MoE", "few-experts", experts(k=4, normalize_routing_weights=1), others=EXPERTS | WIDTH, **ROWS),
    Case(
        *("QMoE", "", quantized_experts, (9, 32), 1),
        out=1,
        units=0,
        why="packed in bytes",
        others={
            ("route", 1): 4,
            ("first", 0): 4,
            ("first_scales", 0): 4,
            ("first", 1): "packed",
            ("second", 2): "packed",
        },
        **ROWS,
    ),
    Case(
        *("MoE", "interleaved", experts("interleaved", activation_type="swiglu", swiglu_fusion=1)),
        others=EXPERTS | WIDTH,
        **ROWS,
    ),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_case(case: Case, version: int) -> None:
    check_case(case, version)


# --- operators without a kernel for this machine: proven on what they stand for ---------------------------


def part(op: str, inputs: list[str], output: str, domain: str = "", **attrs: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], domain=domain, **attrs)


def expand(node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
    """Operators that compute the same as `node`."""
    x, *given = node.input
    y = node.output[0]
    a, b, c, d = (f"expanded_{number}_{i}" for i in range(4))
    if node.op_type == "BiasAdd":
        return [part("Add", [x, given[0]], a), part("Add", [a, given[1]], y)]
    if node.op_type == "BiasSplitGelu":
        split = helper.make_node("Split", [a], [b, c], axis=-1, num_outputs=2)
        return [part("Add", [x, given[0]], a), split, part("Gelu", [c], d), part("Mul", [b, d], y)]
    if node.op_type == "GemmFastGelu":
        return [part("MatMul", [x, given[0]], a), part("FastGelu", [a, given[1]], y, MICROSOFT)]
    if node.op_type == "NhwcConv":
        image = part("Transpose", [x], a, perm=[0, 3, 1, 2])
        kernel = part("Transpose", [given[0]], b, perm=[0, 3, 1, 2])
        conv = part("Conv", [a, b, given[1]], c, pads=[1, 1, 1, 1])
        return [image, kernel, conv, part("Transpose", [c], y, perm=[0, 2, 3, 1])]
    raise AssertionError(node.op_type)


def expanded(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    for number, node in enumerate(proto.graph.node):
        copy.graph.node.extend(expand(node, number) if node.op_type in WITHOUT_KERNEL else [node])
    return copy


WITHOUT_KERNEL: dict[str, tuple[tuple[int, ...], list[tuple[int, ...]], tuple[int, ...], dict[str, Any]]] = {
    "BiasAdd": ((2, 5, 8), [(8,), (2, 5, 8)], (2, 5, 8), {}),
    "BiasSplitGelu": ((2, 5, 8), [(8,)], (2, 5, 4), {}),
    "GemmFastGelu": ((2, 5, 8), [(8, 6), (6,)], (2, 5, 6), {}),
    "NhwcConv": ((2, 5, 4, 8), [(6, 3, 3, 8), (6,)], (2, 5, 4, 6), {"pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize("op", sorted(WITHOUT_KERNEL))
def test_operator_without_kernel(op: str) -> None:
    shape, weights, made, attrs = WITHOUT_KERNEL[op]
    net = Net(20)
    x = net.make(shape, len(shape) - 1)
    y = net.add(op, x, *(net.weight(*w, name=f"c_{i}") for i, w in enumerate(weights)), domain=MICROSOFT, **attrs)
    net.output(net.add("MatMul", y, net.weight(made[-1], 4, name="w_out")), (*made[:-1], 4), FLOAT)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert not outcome.verdict.runnable
    shapes = shapes_of(outcome.model)
    assert shapes["w_in"] == (3, 4)
    assert shapes["w_out"] == (made[-1] // 2, 4)
    removed = outcome.plan.removed(outcome.groups)
    reference = masked(outcome.groups, removed)
    wanted, found = (run(expanded(m.proto))[net.outputs[0].name] for m in (reference, outcome.model))
    whole = run(expanded(net.proto()))[net.outputs[0].name]
    assert np.abs(wanted - found).max() < 1e-5 * np.abs(wanted).max()
    assert np.abs(wanted - whole).max() > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize(("fusion", "pairs"), [(1, [0, 1]), (2, [0, 6]), (0, [0])])
def test_rows_of_a_gate(fusion: int, pairs: list[int]) -> None:
    """Where a position of an expert is in its first weights."""
    net = Net(17)
    x, router = net.make((9, 8), 1), net.input((9, 4), name="router")
    given = [net.weight(4, 12 if fusion else 6, 8, name="first"), "", net.weight(4, 8, 6, name="second"), ""]
    given += [] if fusion else [net.weight(4, 6, 8, name="third")]
    y = net.add("MoE", x, router, *given, domain=MICROSOFT, k=2, activation_type="swiglu", swiglu_fusion=fusion)
    net.output(y, (9, 8), FLOAT)
    groups = api.trace(net.proto())
    group = group_of(groups, "second", 2)
    assert group is not None
    assert group.units == 6
    removed = np.zeros(groups.classes.count, bool)
    removed[group.cells[0][0]] = True
    masks = Removal(groups, removed).masks()
    assert np.flatnonzero(~masks["first"][0, :, 0]).tolist() == pairs
    if not fusion:
        assert np.flatnonzero(~masks["third"][0, :, 0]).tolist() == [0]


def test_blocked_layouts_say_why_not() -> None:
    net = Net(17)
    x = net.add("Conv", net.input((2, 3, 8, 8)), net.weight(16, 3, 3, 3, name="w_in"))
    net.domains.add("com.microsoft.nchwc")
    y = net.add("Conv", x, net.weight(16, 16, 3, 3, name="w"), domain="com.microsoft.nchwc")
    net.output(net.add("Relu", y), (2, 16, 4, 4), FLOAT)
    groups = api.trace(net.proto())
    assert not groups.groups
    for weight in ("w_in", "w"):
        assert any("optimise for the machine after pruning" in r for r in reasons_for(groups, weight, 0))


def test_embedded_ids_are_below_the_sizes_of_their_tables() -> None:
    """A model's own ids: random ones that the runtime can look up."""
    net = Net(17)
    ids, kinds = (net.input(("batch", 40), name=n, dtype=INT32) for n in ("ids", "kinds"))
    tables = [net.weight(90, 8, name="word"), net.weight(40, 8), net.weight(2, 8)]
    y = net.add(
        "EmbedLayerNormalization", ids, kinds, *tables, net.weight(8), net.weight(8), domain=MICROSOFT, outputs=2
    )
    net.output(net.add("MatMul", y[0], net.weight(8, 4)), ("batch", 40, 4), FLOAT)
    model = net.model()
    static = infer(model)
    feeds = random_feeds(model, static, np.random.default_rng(0))
    assert feeds["ids"].max() > 2
    assert feeds["ids"].max() < 90
    assert set(feeds["kinds"].ravel()) == {0, 1}
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    assert shapes_of(outcome.model)["word"] == (90, 4)
