"""Kinds of budgets: what they count, and what they measure of a model that is written."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from onnxprune import api
from onnxprune.allocation import KINDS, Options
from onnxprune.cost import AxisLengths, counts, units_in_order
from onnxprune.model import file_size
from onnxprune.names import BUDGETS
from onnxprune.rewriting import Removal
from onnxprune.rewriting.rewrite import rewrite
from tests.graphs.net import Net


def cut(share: float):
    net = Net()
    h = net.add("Relu", net.add("Gemm", net.input(["n", 4]), net.weight(4, 6, name="w1"), net.weight(6)))
    net.output(net.add("MatMul", h, net.weight(6, 3, name="w2")), ["n", 3])
    groups = api.trace(net.proto())
    gone = np.zeros(groups.classes.count, bool)
    count = int(share * 6)
    gone[groups.groups[0].classes[:count]] = True
    return groups, Removal(groups, gone), rewrite(groups, gone), count


def test_every_kind_is_a_field_and_an_option() -> None:
    assert set(KINDS) == set(BUDGETS) and set(KINDS) <= {f.name for f in fields(Options)}
    assert all(kind.name == name for name, kind in KINDS.items())
    assert [name for name, kind in KINDS.items() if kind.is_timed] == ["latency"]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_functions_of_counts_are_what_the_model_costs(share: float) -> None:
    groups, removal, small, count = cut(share)
    lengths = AxisLengths(groups, {g.name: units_in_order(g, np.zeros(groups.classes.count)) for g in groups.groups})
    numbers = np.array([count])
    cost = counts.of_trace(groups.tracing, small, removal.size)
    assert KINDS["macs"].cost(lengths).total(numbers) == cost.macs
    assert KINDS["params"].cost(lengths).total(numbers) == cost.params
    assert KINDS["latency"].cost(lengths).total(numbers) == cost.macs, "stands in until a machine tells"


def test_what_is_measured() -> None:
    _, removal, small, _ = cut(0.5)
    params, size = KINDS["params"].measured, KINDS["size"].measured
    assert params is not None and params(small, removal) == sum(
        int(np.prod(t.dims)) for t in small.proto.graph.initializer
    )
    assert size is not None and size(small, removal) == file_size(small)
    assert KINDS["macs"].measured is None, "it is exact"
