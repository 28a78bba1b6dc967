"""Labels through the quantisers of QONNX and Brevitas, which are proven by standard nodes that do the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.model.protos import QUANTIZING
from tests.graphs import two_judges
from tests.graphs.net import Net, array_of, group_of, ops_of, prune
from tests.graphs.sandwich import Case, check_case, parameters

DOMAIN = QUANTIZING[0]
SHAPE = (2, 5, 8)


def quant(
    scale: float | list[float] = 0.25,
    zero: float = 0.0,
    bits: int = 4,
    domain: str = DOMAIN,
    op: str = "Quant",
    **attrs,
):
    def build(net: Net, x: str) -> str:
        given = (np.float32(scale), np.float32(zero), np.float32(bits))
        return net.add(op, x, *map(net.const, given), domain=domain, **attrs)

    return build


def bipolar(domain: str):
    return lambda net, x: net.add("BipolarQuant", x, net.const(np.float32(0.5)), domain=domain)


def trunc(domain: str, *scale: float):
    """With a scale, the second version."""

    def build(net: Net, x: str) -> str:
        return net.add("Trunc", x, *(net.const(np.float32(v)) for v in (0.25, 0.0, 8.0, *scale, 4.0)), domain=domain)

    return build


CASES = [
    *(Case("Quant", d.split(".")[0], quant(domain=d), SHAPE, domain=d) for d in QUANTIZING),
    *(Case("BipolarQuant", d.split(".")[0], bipolar(d), SHAPE, domain=d) for d in QUANTIZING),
    *(Case("Trunc", d.split(".")[0], trunc(d), SHAPE, domain=d) for d in QUANTIZING),
    Case("Quant", "per-channel", quant([0.1, 0.2, 0.3, 0.4] * 2), SHAPE, domain=DOMAIN),
    Case("Quant", "other-axis", quant(), (2, 8, 3), 1, 1, domain=DOMAIN),
    *(Case("IntQuant", d.split(".")[0], quant(domain=d, op="IntQuant"), SHAPE, domain=d) for d in QUANTIZING),
    Case("Trunc", "second", trunc(DOMAIN, 0.5), SHAPE, domain=DOMAIN),
    Case("Quant", "unsigned", quant(zero=3.0, signed=0), SHAPE, domain=DOMAIN),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_quantizers(case: Case, version: int) -> None:
    check_case(case, max(version, 17))


def network(domain: str, op: str = "Quant") -> onnx.ModelProto:
    """Two layers with quantised weights and activations, as Brevitas exports them; a scale per output channel."""
    net = Net(17)

    def quantised(x: str, *scale: float) -> str:
        given = [net.const(np.asarray(scale, np.float32).reshape(-1, *[1] * (len(scale) > 1)))]
        if op == "Quant":
            given += [net.const(np.float32(0)), net.const(np.float32(4))]
        return net.add(op, x, *given, domain=domain)

    x = quantised(net.input([3, 6]), 0.1)
    w = quantised(net.weight(8, 6, name="w_in"), *(0.1 * n for n in range(1, 9)))
    hidden = net.add("Relu", net.add("Gemm", x, w, net.weight(8, name="b"), transB=1))
    again = net.add("Quant", hidden, *map(net.const, (np.float32(0.2), np.float32(0), np.float32(5))), domain=domain)
    net.output(net.add("Gemm", again, quantised(net.weight(4, 8, name="w_out"), 0.1), transB=1), [3, 4])
    return net.proto()


@pytest.mark.parametrize("domain", QUANTIZING)
@pytest.mark.parametrize("op", ["Quant", "BipolarQuant"])
def test_networks(domain: str, op: str) -> None:
    proto = network(domain, op)
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok, outcome.verdict
    assert ops_of(outcome.model) == ops_of(proto)
    assert array_of(outcome.model, "w_in").shape == (4, 6) and array_of(outcome.model, "w_out").shape == (4, 4)
    group = group_of(outcome.groups, "w_in", 0)
    assert group is not None and group.exact == (op == "Quant")
    two_judges.check(proto, outcome.plan)


def test_importance_is_that_of_the_quantised_weight() -> None:
    proto = network(QUANTIZING[0])
    tracing = prune(proto).groups.tracing
    found = tracing.weight_value("w_in")
    assert found is not None
    steps = found / (0.1 * np.arange(1, 9, dtype=np.float32)[:, None])
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
    assert np.abs(found - array_of(proto, "w_in")).max() > 0.01


def summed(op: str, *given: float, **attrs: int) -> onnx.ModelProto:
    """Quantised activations, summed over the channels."""
    net = Net(17)
    x = net.add("MatMul", net.input([2, 8]), net.weight(8, 8, name="w_in"))
    y = net.add(op, x, *(net.const(np.float32(v)) for v in given), domain=DOMAIN, **attrs)
    net.output(net.add("ReduceSum", y, net.ints(1)), [2, 1])
    return net.proto()


@pytest.mark.parametrize(
    ("op", "given", "attrs"),
    [
        ("Quant", (0.25, 0.3, 4), {}),  # the zero point lies between steps
        ("Quant", (0.25, 10, 3), {}),  # and beyond them
        ("IntQuant", (0.25, -1, 3), {"signed": 0}),
        ("Quant", (0.25, 15, 4), {"signed": 0, "narrow": 1}),
        ("Quant", (0.25, 0, 1), {}),  # there is no step for zero
        ("Trunc", (0.25, 2, 8, 4), {}),  # the zero point is not truncated
        ("Trunc", (0.25, 3, 8, 1.0, 4), {}),
    ],
)
def test_activations_are_not_zero_without_a_step_for_it(op: str, given: tuple[float, ...], attrs: dict) -> None:
    proto = summed(op, *given, **attrs)
    outcome = prune(proto)
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None and op in group.approximate
    two_judges.check(proto, outcome.plan)


@pytest.mark.parametrize(
    ("op", "given", "attrs"),
    [
        ("Quant", (0.25, 7, 3), {"signed": 0}),
        ("IntQuant", (0.25, -4, 3), {}),
        ("Trunc", (0.25, 0, 8, 4), {}),
        ("Trunc", (0.25, 0, 8, 1.0, 4), {}),
    ],
)
def test_activations_are_zero_with_a_step_for_it(op: str, given: tuple[float, ...], attrs: dict) -> None:
    proto = summed(op, *given, **attrs)
    outcome = prune(proto)
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None and group.exact
    two_judges.check(proto, outcome.plan)
