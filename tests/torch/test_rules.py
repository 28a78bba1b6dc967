"""Every rule against ONNX Runtime and against `onnxprune.autodiff`, on ONNX's own operator tests."""

from __future__ import annotations

import functools

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)

from onnxprune.torch.registry import translated  # noqa: E402
from tests.graphs.node_cases import NEWEST_IN_RUNTIME, NodeCase, all_cases, with_history  # noqa: E402
from tests.measure import torch_rules  # noqa: E402

# Tests of an operator that some rule names; the long run has all of them.
FEW = 3


def _cases() -> list[NodeCase]:
    """Tests of every operator with a rule, at its newest version."""
    ruled = {operator for domain, operator in translated() if not domain}
    found: dict[str, list[NodeCase]] = {}
    for newest in all_cases():
        if newest.node.op_type in ruled and not newest.node.domain:
            case = next((c for c in with_history(newest) if c.version <= NEWEST_IN_RUNTIME), None)
            if case is not None and len(found.setdefault(case.op, [])) < FEW:
                found[case.op].append(case)
    return [case for cases in found.values() for case in cases]


CASES = _cases()


@functools.cache
def _outcome(place: int) -> torch_rules.Outcome:
    return torch_rules.examine(CASES[place])


@pytest.mark.parametrize("place", range(len(CASES)), ids=lambda place: CASES[place].name)
def test_outputs_and_gradients_are_equal(place: int) -> None:
    outcome = _outcome(place)
    assert outcome.status != torch_rules.WRONG, outcome.detail


def test_most_operator_tests_are_equal() -> None:
    """A rule that refused everything would never be wrong."""
    statuses = [_outcome(place).status for place in range(len(CASES))]
    assert statuses.count(torch_rules.EQUAL) >= 0.8 * len(statuses)


@pytest.mark.long
def test_no_operator_test_is_wrong() -> None:
    wrong = [o for o in torch_rules.outcomes() if o.status == torch_rules.WRONG]
    assert not wrong
