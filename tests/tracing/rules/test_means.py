"""Means that are written as sums x 1/C: over what remains, as a ReduceMean is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnxprune.model.protos import MICROSOFT
from tests.graphs import two_judges
from tests.graphs.net import FLOAT, Net, array_of, group_of, prune, run

C = 12
Mean = Callable[[Net, str], str]


def number(net: Net, value: float) -> str:
    return net.const(np.asarray(value, net.dtype))


def filled(net: Net, value: float, *shape: int) -> str:
    return net.const(np.full(shape, value, net.dtype))


def total(net: Net, x: str, op: str = "ReduceSum", keepdims: int = 1) -> str:
    return net.listed(op, x, [-1], since=13 if op == "ReduceSum" else 18, keepdims=keepdims)


def mean(net: Net, x: str) -> str:
    return total(net, x, "ReduceMean")


def size_of(net: Net, x: str) -> str:
    return net.cast(net.add("Gather", net.add("Shape", x), net.ints(-1)), FLOAT)


def unsqueezed(net: Net, x: str) -> str:
    flat = net.add("Mul", total(net, x, keepdims=0), number(net, 1 / C))
    return net.add("Unsqueeze", flat, net.ints(-1))


def by_conv(net: Net, x: str) -> str:
    """[4, C] as an image of C channels, and a bias that takes no part."""
    image = net.add("Reshape", x, net.ints(4, C, 1, 1))
    made = net.add("Conv", image, filled(net, 1 / C, 1, C, 1, 1), filled(net, 0.25, 1))
    return net.add("Sub", net.add("Reshape", made, net.ints(4, 1)), number(net, 0.25))


def by_gemm(net: Net, x: str) -> str:
    made = net.add("Gemm", x, filled(net, 1, C, 1), filled(net, 0.5, 1), alpha=1 / C, beta=2.0)
    return net.add("Sub", made, number(net, 1.0))


def shared_by_two(net: Net, x: str) -> str:
    """Two divisions of one sum."""
    sum_ = total(net, x)
    halves = [net.add("Mul", net.add("Div", sum_, number(net, C)), number(net, 0.5)) for _ in range(2)]
    return net.add("Add", *halves)


def expanded(net: Net, x: str) -> str:
    wide = net.add("Expand", total(net, x), net.ints(4, C))
    return net.add("ReduceMax", net.add("Div", wide, number(net, C)), axes=[1])


MEANS: dict[str, Mean] = {
    "times": lambda net, x: net.add("Mul", total(net, x), number(net, 1 / C)),
    "times-from-the-left": lambda net, x: net.add("Mul", number(net, 1 / C), total(net, x)),
    "divided": lambda net, x: net.add("Div", total(net, x), number(net, C)),
    "divided-by-the-size": lambda net, x: net.add("Div", total(net, x), size_of(net, x)),
    "reciprocal": lambda net, x: net.add("Mul", total(net, x), net.add("Reciprocal", number(net, C))),
    "in-two-steps": lambda net, x: net.add(
        "Div", net.add("Identity", net.add("Div", total(net, x), number(net, 3))), number(net, C / 3)
    ),
    "before": lambda net, x: total(net, net.add("Mul", x, number(net, 1 / C))),
    "before-by-array": lambda net, x: total(net, net.add("Mul", x, filled(net, 1 / C, C))),
    "before-and-behind": lambda net, x: net.add(
        "Div", total(net, net.add("Div", x, number(net, 4))), number(net, C / 4)
    ),
    "without-its-axis": unsqueezed,
    "halved-twice": shared_by_two,
    "matmul": lambda net, x: net.add("MatMul", x, filled(net, 1 / C, C, 1)),
    "matmul-of-ones": lambda net, x: net.add("Mul", net.add("MatMul", x, filled(net, 1, C, 1)), number(net, 1 / C)),
    "matmul-to-many": lambda net, x: net.add("ReduceMax", net.add("MatMul", x, filled(net, 1 / C, C, 3)), axes=[1]),
    "matmul-from-the-left": lambda net, x: net.add(
        "Transpose",
        net.add("MatMul", filled(net, 1 / C, 1, C), net.add("Transpose", x, perm=[1, 0])),
        perm=[1, 0],
    ),
    "gemm": by_gemm,
    "conv": by_conv,
    "einsum": lambda net, x: net.add(
        "Unsqueeze", net.add("Mul", net.add("Einsum", x, equation="bc->b"), number(net, 1 / C)), net.ints(-1)
    ),
    "einsum-of-two": lambda net, x: net.add("Einsum", x, filled(net, 1 / C, C, 1), equation="bc,cd->bd"),
    "fused-matmul": lambda net, x: net.add("FusedMatMul", x, filled(net, 1, C, 1), alpha=1 / C, domain=MICROSOFT),
    "expanded": expanded,
}
SQUARES: dict[str, Mean] = {
    "sum-of-squares": lambda net, d: net.add("Mul", total(net, d, "ReduceSumSquare"), number(net, 1 / C)),
    "squares-of-less": lambda net, d: total(net, net.add("Mul", d, number(net, C**-0.5)), "ReduceSumSquare"),
    "root": lambda net, d: net.add(
        "Pow", net.add("Mul", total(net, d, "ReduceL2"), number(net, C**-0.5)), number(net, 2)
    ),
    "root-of-sum": lambda net, d: net.add(
        "Pow",
        net.add("Div", net.add("Sqrt", total(net, net.add("Mul", d, d))), number(net, C**0.5)),
        number(net, 2),
    ),
}


def normed(first: Mean, second: Mean, *, dtype=np.float32) -> Net:
    """A layer norm between two layers, of a mean and of a mean of squares; what it gives is an output, too."""
    net = Net(17, dtype=dtype)
    x = net.input([4, 6])
    y = net.add("MatMul", x, net.weight(6, C, name="w_in"))
    less = net.add("Sub", y, first(net, y))
    deviation = net.add("Sqrt", net.add("Add", second(net, less), number(net, 1e-5)))
    n = net.add("Div", less, deviation, name="normed")
    n = net.add("Add", net.add("Mul", n, net.weight(C, name="gain", scale=1.0)), net.weight(C, name="shift"))
    net.output(net.add("MatMul", n, net.weight(C, 3, name="w_out")), [4, 3])
    return net


def of_squares(first: Mean) -> Mean:
    return lambda net, less: first(net, net.add("Mul", less, less))


def seen(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Outputs, and what the norm gives."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    kind = copy.graph.output[0].type.tensor_type.elem_type
    copy.graph.output.append(onnx.helper.make_tensor_value_info("normed", kind, None))
    found = run(copy)
    return {name: value.astype(np.float64) for name, value in found.items()}


def check(proto: onnx.ModelProto, wanted: onnx.ModelProto, tolerance: float = 1e-5) -> None:
    """What is written as a sum is pruned as what is written with ReduceMean."""
    found, expected = prune(proto), prune(wanted)
    group = group_of(found.groups, "w_in", 1)
    assert group is not None and group.units == C
    assert not group.exact and "how many positions" in group.approximate
    assert found.verdict is not None and found.verdict.ok, found.verdict.problem
    assert found.rolled_back == ()
    for name in ("w_in", "w_out"):
        np.testing.assert_array_equal(array_of(found.model, name), array_of(expected.model, name))
    got, want = seen(found.model.proto), seen(expected.model.proto)
    assert np.abs(got["normed"].mean()) < 10 * tolerance and np.abs(got["normed"].std() - 1) < 1e-2
    for left, right in zip(got.values(), want.values(), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * np.abs(right).max())
    two_judges.check(proto, found.plan)


@pytest.mark.parametrize("kind", MEANS)
def test_a_mean_by_a_sum(kind: str) -> None:
    first = MEANS[kind]
    check(normed(first, of_squares(first)).proto(), normed(mean, of_squares(mean)).proto())


@pytest.mark.parametrize("kind", SQUARES)
def test_a_mean_of_squares_by_a_sum(kind: str) -> None:
    check(normed(mean, SQUARES[kind]).proto(), normed(mean, of_squares(mean)).proto())


def test_a_variance_of_squares_less_the_square() -> None:
    def variance(net: Net, x: str, mean_of: Mean) -> str:
        of = mean_of(net, x)
        return net.add("Sub", mean_of(net, net.add("Mul", x, x)), net.add("Mul", of, of))

    by_sum = MEANS["times"]
    left, right = (normed(m, lambda net, d, m=m: variance(net, d, m)).proto() for m in (by_sum, mean))
    check(left, right)


def test_a_sample_variance() -> None:
    """Its sum is divided by one less than there are."""
    sample = normed(mean, lambda net, d: net.add("Div", total(net, net.add("Mul", d, d)), number(net, C - 1)))
    outcome = prune(sample.proto())
    assert outcome.verdict is not None and outcome.verdict.ok
    values = seen(outcome.model.proto)["normed"]
    np.testing.assert_allclose((values**2).sum(axis=1), values.shape[1] - 1, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("kind", ["times", "divided", "before", "matmul"])
def test_other_precisions(kind: str, dtype: type) -> None:
    first = MEANS[kind]
    left, right = (normed(m, of_squares(m), dtype=dtype).proto() for m in (first, mean))
    check(left, right, 2e-2 if dtype == np.float16 else 1e-10)


@pytest.mark.parametrize(("axes", "count"), [([1, 2, 3], 12 * 5 * 4), ([1, 2, 3], 12), ([1, 3], 12 * 4), ([-3], 12)])
@pytest.mark.parametrize("batch", [2, "batch"])
def test_images(axes: list[int], count: int, batch: int | str) -> None:
    """Means over channels, and over other axes that do not shrink, or sums over these of means over channels."""

    def built(op: str, factor: float) -> onnx.ModelProto:
        net = Net(17)
        y = net.add("Conv", net.input([batch, 3, 5, 4]), net.weight(C, 3, 1, 1, name="w_in"))
        middle = net.add("Mul", net.listed(op, y, axes, since=13 if op == "ReduceSum" else 18), number(net, factor))
        net.output(net.add("Conv", net.add("Sub", y, middle), net.weight(3, C, 1, 1, name="w_out")), [batch, 3, 5, 4])
        return net.proto()

    positions = int(np.prod([{1: 12, 2: 5, 3: 4, -3: 12}[a] for a in axes]))
    found, wanted = prune(built("ReduceSum", 1 / count)), prune(built("ReduceMean", positions / count))
    assert found.verdict is not None and found.verdict.ok and not found.plan.steps[0].exact
    for name, value in run(wanted.model).items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(next(iter(run(found.model).values())), value, atol=1e-5 * scale, err_msg=name)


def test_rows_of_a_group_norm() -> None:
    """Each of three rows loses the same number of positions; means are over a row."""

    def built(first: Mean) -> onnx.ModelProto:
        net = Net(17)
        y = net.add("MatMul", net.input([4, 6]), net.weight(6, 3 * C, name="w_in"))
        rows = net.add("Reshape", y, net.ints(-1, 3, C))
        less = net.add("Sub", rows, first(net, rows))
        flat = net.add("Reshape", less, net.ints(-1, 3 * C))
        net.output(net.add("MatMul", flat, net.weight(3 * C, 3, name="w_out")), [4, 3])
        return net.proto()

    outcomes = [prune(built(m)) for m in (MEANS["times"], mean)]
    assert all(o.verdict is not None and o.verdict.ok for o in outcomes)
    assert [len(array_of(o.model, "w_out")) for o in outcomes] == [3 * C // 2] * 2
    (left,), (right,) = (run(o.model).values() for o in outcomes)
    np.testing.assert_allclose(left, right, atol=1e-5)


# --- sums -------------------------------------------------------------------------------------------------


def stays_a_sum(net: Net, y: str, factor: str) -> str:
    return net.add("Mul", total(net, y), factor)


def also_read(net: Net, y: str) -> str:
    """One reader divides the sum, the other does not."""
    sum_ = total(net, y)
    return net.add("Add", net.add("Mul", sum_, number(net, 1 / C)), net.add("Tanh", sum_))


def two_counts(net: Net, y: str) -> str:
    """A sum over two axes, divided by the length of one, and of the other."""
    sum_ = net.listed("ReduceSum", net.add("Unsqueeze", y, net.ints(1)), [1, 2], since=13, keepdims=0)
    return net.add("Unsqueeze", net.add("Mul", sum_, number(net, 1 / 7)), net.ints(1))


SUMS: dict[str, Mean] = {
    "plain": total,
    "another-number": lambda net, y: stays_a_sum(net, y, number(net, 1 / 7)),
    "many-numbers": lambda net, y: stays_a_sum(net, y, net.const(np.array([1 / C, 0.3], np.float32))),
    "an-input": lambda net, y: stays_a_sum(net, y, net.input([1], "factor")),
    "also-read-as-a-sum": also_read,
    "two-axes": two_counts,
    "a-function-between": lambda net, y: stays_a_sum(net, net.add("Tanh", total(net, y)), number(net, 1 / C)),
    "a-trained-weight": lambda net, y: net.add("MatMul", y, net.weight(C, 1)),
}


@pytest.mark.parametrize("kind", SUMS)
def test_what_stays_a_sum(kind: str) -> None:
    """It is exact: positions that are zero add nothing."""
    net = Net(17)
    y = net.add("MatMul", net.input([4, 6]), net.weight(6, C, name="w_in"))
    net.output(SUMS[kind](net, y))
    outcome = prune(net.proto())
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None and group.exact, group.approximate
    assert two_judges.check(net.proto(), outcome.plan)


def test_a_count_that_a_caller_may_override() -> None:
    net = Net(17)
    y = net.add("MatMul", net.input([4, 6]), net.weight(6, C, name="w_in"))
    net.output(stays_a_sum(net, y, net.const(np.float32([1 / C]), "factor")), [4, 1])
    proto = net.proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("factor", FLOAT, [1]))
    outcome = prune(proto)
    group = group_of(outcome.groups, "w_in", 1)
    assert group is None or group.exact
