"""Labels through convolutions, matrix products and Einsum."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs.net import Net, array_of, prune, shapes_of, with_arrays
from tests.graphs.sandwich import Case, check_case, parameters

KERNELS = {1: (3,), 2: (3, 3), 3: (3, 3, 3)}


def conv(spatial: int, out: int = 6, group: int = 1, op: str = "Conv", bias: bool = True, inputs: int = 8, **attrs):
    def build(net: Net, x: str) -> str:
        sizes = (out, inputs // group) if op == "Conv" else (inputs, out // group)
        kernel = attrs.get("kernel_shape", KERNELS[spatial])
        weights = [net.weight(*sizes, *kernel, name="w")]
        if bias:
            weights.append(net.weight(out, name="bias"))
        return net.add(op, x, *weights, group=group if group > 1 else None, **attrs)

    return build


def shape(spatial: int, channels: int = 8) -> tuple[int, ...]:
    return (2, channels, *(7, 6, 5)[:spatial])


def conv_computed(net: Net, x: str) -> str:
    """Weights that the graph computes from others."""
    weight = net.add("Mul", net.weight(6, 8, 3, 3, name="w"), net.weight(6, 1, 1, 1, name="gain"))
    return net.add("Conv", x, weight)


def conv_grouped_computed(net: Net, x: str) -> str:
    weight = net.add("Mul", net.weight(6, 4, 3, 3, name="w"), net.weight(6, 1, 1, 1, name="gain"))
    return net.add("Conv", x, weight, group=2)


def conv_of_activations(net: Net, x: str) -> str:
    kernels = net.add("Reshape", net.make((1, 24), 1, weight="w"), net.ints(3, 8, 1, 1))
    return net.add("Conv", x, kernels)


def two_in_a_row(net: Net, x: str) -> str:
    """Rows of one grouped convolution cross those of another."""
    x = net.add("Conv", x, net.weight(12, 4, 1, 1, name="w"), group=2)
    return net.add("Conv", x, net.weight(12, 4, 1, 1, name="w2"), group=3)


def shuffled(channels: int):
    def build(net: Net, x: str) -> str:
        """Channel shuffle between grouped convolutions."""
        x = net.add("Conv", x, net.weight(channels, 4, 1, 1, name="w"), group=3)
        x = net.add("Reshape", x, net.ints(2, 3, channels // 3, 6, 5))
        x = net.add("Transpose", x, perm=[0, 2, 1, 3, 4])
        x = net.add("Reshape", x, net.ints(2, channels, 6, 5))
        return net.add("Conv", x, net.weight(6, channels // 3, 1, 1, name="w2"), group=3)

    return build


def gemm(c: tuple[int, ...] | None = (6,), weight_first: bool = False, **attrs):
    def build(net: Net, x: str) -> str:
        if weight_first:
            sizes = (8, 6) if attrs.get("transA") else (6, 8)
        else:
            sizes = (6, 8) if attrs.get("transB") else (8, 6)
        weight = net.weight(*sizes, name="w")
        given = [weight, x] if weight_first else [x, weight]
        if c is not None:
            given.append(net.weight(*c, name="bias", scale=0.3))
        elif net.opset < 11:
            given.append(net.const(np.float32(0.5)))
        return net.add("Gemm", *given, **attrs)

    return build


def gemm_activation_c(net: Net, x: str) -> str:
    other = net.make((5, 6), 1, weight="w_other")
    return net.add("Gemm", x, net.weight(8, 6, name="w"), other, beta=0.5)


def product(*sizes: int, first: bool = False):
    def build(net: Net, x: str) -> str:
        weight = net.weight(*sizes, name="w")
        return net.add("MatMul", *([weight, x] if first else [x, weight]))

    return build


def product_of(shape: tuple[int, ...], axis: int, first: bool = False):
    def build(net: Net, x: str) -> str:
        other = net.make(shape, axis, weight="w_other")
        return net.add("MatMul", *([other, x] if first else [x, other]))

    return build


def computed(net: Net, x: str) -> str:
    """A product of two weights, as low-rank adapters have."""
    weight = net.add("MatMul", net.weight(8, 5), net.weight(5, 6))
    return net.add("MatMul", x, weight)


def einsum(equation: str, *sizes: tuple[int, ...]):
    def build(net: Net, x: str) -> str:
        weights = [net.weight(*s, name="w" if not i else f"w{i}") for i, s in enumerate(sizes)]
        return net.add("Einsum", x, *weights, equation=equation)

    return build


def einsum_of(equation: str, shape: tuple[int, ...], axis: int):
    def build(net: Net, x: str) -> str:
        return net.add("Einsum", x, net.make(shape, axis, weight="w_other"), equation=equation)

    return build


def made(units: int = 6, axis: int = 0) -> dict[tuple[str, int], int | str]:
    """The weight's own output axis, and what reads it."""
    return {("w", axis): units, ("w_out", 0): units}


BIAS = {("bias", 0): 6}
STUCK = "its rows cannot all lose the same number of positions"

CASES = [
    *(Case("Conv", f"{n}d", conv(n), shape(n), 1, 1, others=made() | BIAS) for n in KERNELS),
    Case("Conv", "plain", conv(2, bias=False), shape(2), 1, 1, others=made()),
    Case("Conv", "odd", conv(2, out=7, inputs=5), shape(2, 5), 1, 1, units=5, others=made(7)),
    Case(
        "Conv", "strided", conv(2, strides=[2, 1], pads=[1, 0, 1, 2], dilations=[1, 2]), shape(2), 1, 1, others=made()
    ),
    Case("Conv", "auto-pad", conv(2, auto_pad="SAME_UPPER"), shape(2), 1, 1, others=made()),
    Case(
        "Conv",
        "batch",
        conv(2),
        (6, 8, 7, 6),
        0,
        0,
        units=6,
        others={("w", 0): "graph output", ("w", 1): "graph input", ("w_out", 0): 6},
    ),
    Case("Conv", "spatial", conv(2), shape(2), 3, 1, units=0, why="spatial axis of a convolution", others=made()),
    *(Case("Conv", f"grouped-{n}d", conv(n, group=2), shape(n), 1, 1, units=4, others=made(3)) for n in KERNELS),
    Case("Conv", "depthwise", conv(2, out=8, group=8), shape(2), 1, 1, others=made(8)),
    Case("Conv", "multiplier", conv(2, out=16, group=8), shape(2), 1, 1, others=made(8)),
    Case("Conv", "one-of-each-group", conv(2, out=2, group=2), shape(2), 1, 1, units=2, others=made(2)),
    Case("Conv", "pairs", conv(2, out=8, group=4), shape(2), 1, 1, units=2, others=made(2)),
    Case("Conv", "computed", conv_computed, shape(2), 1, 1, others={("w", 0): 6, ("gain", 0): 6}),
    Case("Conv", "grouped-computed", conv_grouped_computed, shape(2), 1, 1, units=2, others={("w", 0): 2}),
    Case(
        "Conv",
        "of-activations",
        conv_of_activations,
        (1, 8, 6, 5),
        1,
        1,
        others={("w", 1): 8, ("w_out", 0): "row of a split axis"},
    ),
    Case("Conv", "crossing", two_in_a_row, shape(2), 1, 1, units=4, others={("w", 0): 2, ("w2", 0): 4}),
    Case("Conv", "shuffled", shuffled(18), (2, 12, 6, 5), 1, 1, units=4, others={("w", 0): 2, ("w2", 0): 2}),
    Case("Conv", "shuffled-odd", shuffled(12), (2, 12, 6, 5), 1, 1, units=4, others={("w", 0): STUCK, ("w2", 0): 2}),
    *(
        Case("ConvTranspose", f"{n}d", conv(n, op="ConvTranspose"), shape(n), 1, 1, others=made(axis=1) | BIAS)
        for n in KERNELS
    ),
    Case("ConvTranspose", "plain", conv(2, op="ConvTranspose", bias=False), shape(2), 1, 1, others=made(axis=1)),
    Case(
        "ConvTranspose",
        "strided",
        conv(2, op="ConvTranspose", strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1]),
        shape(2),
        1,
        1,
        others=made(axis=1),
    ),
    *(
        Case(
            "ConvTranspose",
            f"grouped-{n}d",
            conv(n, group=2, op="ConvTranspose"),
            shape(n),
            1,
            1,
            units=4,
            others=made(3, 1),
        )
        for n in (1, 2)
    ),
    Case(
        "ConvTranspose",
        "depthwise",
        conv(2, 8, 8, "ConvTranspose"),
        shape(2),
        1,
        1,
        others={("w", 0): 8, ("w_out", 0): 8},
    ),
    Case(
        "ConvTranspose",
        "multiplier",
        conv(2, 16, 8, "ConvTranspose"),
        shape(2),
        1,
        1,
        others={("w", 0): 8, ("w_out", 0): 8},
    ),
    *(
        Case("Gemm", f"c-{'x'.join(map(str, c))}", gemm(c), (5, 8), 1, 1, others=made(axis=1))
        for c in ((6,), (1, 6), (5, 6), (5, 1), (1,), ())
    ),
    Case("Gemm", "no-c", gemm(None), (5, 8), 1, 1, others=made(axis=1)),
    Case("Gemm", "trans-b", gemm((6,), transB=1), (5, 8), 1, 1, others=made() | BIAS),
    Case("Gemm", "trans-a", gemm((6,), transA=1), (8, 5), 0, 1, others=made(axis=1) | BIAS),
    Case("Gemm", "trans-both", gemm((6,), transA=1, transB=1, alpha=0.5, beta=2.0), (8, 5), 0, 1, others=made() | BIAS),
    Case("Gemm", "weight-first", gemm((6, 1), weight_first=True), (8, 5), 0, 0, others=made() | BIAS),
    Case("Gemm", "weight-first-trans", gemm(None, True, transA=1, transB=1), (5, 8), 1, 0, others=made(axis=1)),
    Case("Gemm", "outer", gemm((5, 6)), (5, 8), 0, 0, units=5, others={("bias", 0): 5, ("w_out", 0): 5}),
    Case("Gemm", "activation-c", gemm_activation_c, (5, 8), 1, 1, others=made(axis=1) | {("w_other", 1): 6}),
    Case("MatMul", "right", product(8, 6), others=made(axis=1)),
    Case("MatMul", "left", product(6, 8, first=True), (2, 8, 5), 1, 1, others=made()),
    Case("MatMul", "batched", product(2, 8, 6), others={("w", 2): 6, ("w_out", 0): 6}),
    Case("MatMul", "broadcast-batch", product(4, 1, 8, 6), (2, 5, 8), 2, 3, others={("w", 3): 6, ("w_out", 0): 6}),
    Case("MatMul", "outer", product(8, 6), (2, 5, 8), 1, 1, units=5, others={("w_out", 0): 5}),
    Case("MatMul", "batch", product(4, 8, 6), (4, 5, 8), 0, 0, units=4, others={("w", 0): 4, ("w_out", 0): 4}),
    Case("MatMul", "vector-right", product(8), (2, 5, 8), 2, 1, others={("w_out", 0): "graph input"}),
    Case(
        "MatMul",
        "vector-left",
        product(8, first=True),
        (2, 8, 5),
        1,
        1,
        others={("w", 0): 8, ("w_out", 0): "graph input"},
    ),
    Case(
        "MatMul", "activations-inner", product_of((2, 8, 5), 1), others={("w_other", 1): 8, ("w_out", 0): "graph input"}
    ),
    Case(
        "MatMul",
        "activations-outer",
        product_of((2, 8, 5), 2),
        (2, 6, 8),
        1,
        1,
        units=6,
        others={("w_out", 0): 6, ("w_other", 1): "graph output"},
    ),
    Case("MatMul", "activations-batch", product_of((4, 8, 5), 0), (4, 6, 8), 0, 0, units=4, others={("w_other", 1): 4}),
    Case("MatMul", "computed", computed, others={("w_out", 0): 6}),
    Case("Einsum", "right", einsum("bij,jk->bik", (8, 6)), others=made(axis=1)),
    Case("Einsum", "implicit", einsum("bij,jk", (8, 6)), others=made(axis=1)),
    Case("Einsum", "spaces", einsum(" b i j , j k -> b k i ", (8, 6)), out=1, others=made(axis=1)),
    Case("Einsum", "ellipsis", einsum("...j,jk->...k", (8, 6)), others=made(axis=1)),
    Case("Einsum", "ellipsis-first", einsum("bij,...jk->b...ik", (8, 6)), others=made(axis=1)),
    Case("Einsum", "three", einsum("bij,jk,kl->bil", (8, 7), (7, 6)), others={("w", 1): 7, ("w1", 1): 6}),
    Case("Einsum", "scaled", einsum("bij,j->bij", (8,)), others={("w", 0): 8, ("w_out", 0): 8}),
    Case("Einsum", "kept", einsum("bij,ik->bjk", (5, 6)), out=1, others={("w_out", 0): 8}),
    Case("Einsum", "summed", einsum("bij->bi"), out=None),
    Case("Einsum", "heads", einsum("bij,jhd->bihd", (8, 3, 4)), out=3, others={("w", 2): 4, ("w_out", 0): 4}),
    Case("Einsum", "activations", einsum_of("bij,bkj->bik", (2, 7, 8), 2), out=1, others={("w_other", 1): 8}),
    Case("Einsum", "diagonal", einsum("bjj->bj"), (2, 8, 8), 2, 1, units=0, why="graph input"),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_contraction(case: Case, version: int) -> None:
    check_case(case, version)


def test_group_attribute_follows_whole_groups() -> None:
    case = next(c for c in CASES if str(c) == "Conv-depthwise")
    outcome = check_case(case, 17)
    assert outcome is not None
    node = next(n for n in outcome.model.proto.graph.node if n.op_type == "Conv")
    assert {a.name: a.i for a in node.attribute}["group"] == 4
    assert shapes_of(outcome.model)["w"] == (4, 1, 3, 3)


def test_group_attribute_stays_where_channels_go_within_groups() -> None:
    case = next(c for c in CASES if str(c) == "Conv-grouped-2d")
    outcome = check_case(case, 17)
    assert outcome is not None
    node = next(n for n in outcome.model.proto.graph.node if n.op_type == "Conv")
    assert {a.name: a.i for a in node.attribute}["group"] == 2
    assert shapes_of(outcome.model)["w"] == (4, 2, 3, 3)


def test_groups_choose_their_own_channels() -> None:
    """The least important channels differ from group to group, and each group loses its own."""
    net = Net()
    x = net.make((2, 8, 5, 5), 1)
    net.read(net.add("Conv", x, net.weight(6, 4, 3, 3, name="w"), group=2), 1)
    weights = array_of(net.proto(), "w_in").copy()
    weights[:, [0, 1, 6, 7]] *= 1e-3
    proto = net.proto()
    proto = with_arrays(proto, {"w_in": weights, "w": np.ones((6, 4, 3, 3), np.float32)})
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    np.testing.assert_array_equal(array_of(outcome.model, "w_in"), weights[:, [2, 3, 4, 5]])
