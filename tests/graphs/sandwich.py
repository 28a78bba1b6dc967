"""An operator between two contractions: how a rule is tested, at every opset that changed the operator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import defs

from onnxprune import api
from onnxprune.errors import GoalMissed
from onnxprune.tracing import Groups
from tests.graphs.net import (
    NEWEST_OPSET,
    Net,
    array_of,
    group_of,
    groups_of,
    positions_of,
    prune,
    reasons_for,
    run,
    shapes_of,
    with_arrays,
)

Build = Callable[[Net, str], Any]


@dataclass(frozen=True)
class Case:
    """One way in which labels can meet an operator.

    Attributes:
        op: the operator that is tested.
        name: what is special about this case.
        build: adds the operator to a net, on a tensor; returns its output(s), or None if it made outputs itself.
        shape: of the tensor.
        axis: the axis of it that carries labels.
        out: the axis of every output that carries them on, None if they end in the operator.
        units: of the group of `axis`; 0 if it is locked.
        why: part of the reason that locks it.
        exact: whether the group is exact.
        others: more weights: (tensor, axis) -> units, or part of the reason that locks it.
        since: first opset that is tested.
        until: last one.
        options: for `prune`.
    """

    op: str
    name: str
    build: Build
    shape: Sequence[int] = (2, 5, 8)
    axis: int = 2
    out: int | None = 2
    units: int = 8
    why: str = ""
    exact: bool = True
    others: Mapping[tuple[str, int], int | str] = field(default_factory=dict)
    since: int = 7
    until: int = NEWEST_OPSET
    options: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""

    @property
    def contracts(self) -> bool:
        """Whether the labels end in the operator, and others come out."""
        return self.op in (FUSED_CONTRACTIONS if self.domain else CONTRACTIONS)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}" if self.name else self.op


@functools.cache
def history() -> dict[tuple[str, str], set[int]]:
    """Operator -> the opsets at which its definition changed."""
    found: dict[tuple[str, str], set[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    return found


def versions_of(op: str, since: int = 7, until: int = NEWEST_OPSET, domain: str = "") -> list[int]:
    """The opsets at which the definition of `op` changed, and the first one that is asked for."""
    changes = history().get((domain, op), set())
    first = max(since, min(changes, default=since))
    return sorted({first} | {v for v in changes if first < v <= until})


def parameters(cases: Sequence[Case]) -> list[Any]:
    return [
        pytest.param(case, version, id=f"{case}-{version}")
        for case in cases
        for version in versions_of(case.op, case.since, case.until, case.domain)
    ]


def build(case: Case, version: int) -> Net:
    net = Net(version)
    made = case.build(net, net.make(case.shape, case.axis))
    for index, tensor in enumerate([made] if isinstance(made, str) else made or []):
        if case.out is None:
            net.output(tensor)
        else:
            net.read(tensor, case.out, weight="w_out" if not index else f"w_out{index}")
    return net


def check_case(case: Case, version: int) -> api.Outcome | None:
    """Prune through the operator, and compare with what the case says."""
    net = build(case, version)
    proto = net.proto()
    wanted = {("w_in", 1): case.units or case.why, **case.others}
    if not any(isinstance(w, int) for w in wanted.values()):
        groups = api.trace(proto, heads=case.options.get("heads", True), head_dims=case.options.get("head_dims", False))
        check_groups(groups, wanted)
        check_untouched(proto, case, wanted)
        return None
    outcome = prune(proto, **case.options)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    check_groups(outcome.groups, wanted)
    if case.units:
        group = group_of(outcome.groups, "w_in", 1)
        assert group is not None
        assert group.exact == case.exact
        inside = case.contracts or case.options.get("head_dims")  # queries end in their product with keys
        if case.out is not None and not inside:
            assert ("w_out", 0) in {(m.tensor, m.axis) for m in group.members}
    check_sizes(outcome, wanted)
    if case.units and case.exact and case.out is not None and not case.contracts:
        check_by_zeroing(case, proto, outcome)
    return outcome


CONTRACTIONS = frozenset(("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"))
FUSED_CONTRACTIONS = frozenset(
    ("Attention", "FusedConv", "FusedGemm", "FusedMatMul", "TransposeMatMul", "MoE", "QMoE", "DynamicQuantizeLSTM")
)


def check_groups(groups: Groups, wanted: Mapping[tuple[str, int], int | str]) -> None:
    for (tensor, axis), expected in wanted.items():
        group = group_of(groups, tensor, axis)
        reasons = reasons_for(groups, tensor, axis)
        if isinstance(expected, int):
            assert group is not None, f"{tensor}:{axis} is in no group: {reasons}"
            assert group.units == expected, f"{tensor}:{axis} has {group.units} units"
        else:
            assert group is None, f"{tensor}:{axis} should be locked by {expected!r}"
            assert any(expected in r for r in reasons), f"{tensor}:{axis} is locked by {reasons}"


def check_untouched(proto: Any, case: Case, wanted: Mapping[tuple[str, int], int | str]) -> None:
    """What is locked stays as it is, also when something else can be pruned."""
    try:
        outcome = prune(proto, **case.options)
    except GoalMissed:
        return
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    before, after = shapes_of(proto), shapes_of(outcome.model)
    for tensor, axis in wanted:
        assert before[tensor][axis] == after[tensor][axis]


def check_sizes(outcome: api.Outcome, wanted: Mapping[tuple[str, int], int | str]) -> None:
    """Every group lost half of its units (rounded down), on the axes that it says it cuts."""
    before, after = shapes_of(outcome.groups.model), shapes_of(outcome.model)
    for (tensor, axis), expected in wanted.items():
        size = before[tensor][axis]
        left = after[tensor][axis] if tensor in after else size
        if isinstance(expected, str):
            assert left == size
            continue
        removed = sum(
            g.units // 2 * (positions_of(g, tensor, axis) // g.units) for g in groups_of(outcome.groups, tensor, axis)
        )
        assert removed
        assert left == size - removed, f"{tensor}:{axis} went from {size} to {left}"
    assert outcome.after.params < outcome.before.params
    graphs = [m.proto.graph for m in (outcome.groups.model, outcome.model)]
    parts = [len(g.node) + len(g.initializer) for g in graphs]
    if parts[1] <= parts[0]:  # a node or constant that corrects a size outweighs what these tiny weights lose
        assert outcome.after.size < outcome.before.size


def check_by_zeroing(case: Case, proto: Any, outcome: api.Outcome) -> None:
    """Without the masked reference: the original with zeros where the weights around the operator went."""
    masks = outcome.plan.masks(proto)
    zeroed = {}
    for name, mask in masks.items():
        if name not in shapes_of(proto):
            continue
        # Zeros in the operator's own constants could be divided by, and so could a variance of zero.
        if name.startswith("w_out") or not (name.startswith("c_") or case.op == "MeanVarianceNormalization"):
            value = array_of(proto, name)
            zeroed[name] = np.where(mask, value, 0).astype(value.dtype)
    assert "w_out" in zeroed
    expected, plain, found = run(with_arrays(proto, zeroed)), run(proto), run(outcome.model)
    changed = False
    for name, value in expected.items():
        scale = max(float(np.abs(value).max()), 1e-30)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * scale)
        changed |= float(np.abs(plain[name] - value).max()) > 1e-3 * scale
    assert changed, "the cut changed nothing"
