"""Every rule of differentiation against finite differences, on ONNX's own operator tests."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pytest

from onnxprune.autodiff.lowering.registry import lowered
from onnxprune.autodiff.registry import differentiable
from tests.graphs.fused_cases import fused_cases
from tests.graphs.node_cases import NEWEST_IN_RUNTIME, NodeCase, all_cases, with_history
from tests.graphs.recurrent_cases import recurrent_cases
from tests.measure import gradients

# Tests of an operator that some rule names; others are covered by the long run of all tests.
FEW = 1


def _cases() -> list[NodeCase]:
    """A test of every operator with a rule or written out, at its newest version; and ONNX Runtime's own operators."""
    ruled = {operator for domain, operator in [*differentiable(), *lowered()] if not domain}
    found: dict[str, list[NodeCase]] = {}
    for newest in all_cases():
        if newest.node.op_type in ruled and not newest.node.domain and newest.name not in gradients.NOT_DIFFERENTIABLE:
            case = next((c for c in with_history(newest) if c.version <= NEWEST_IN_RUNTIME), None)
            if case is not None and len(found.setdefault(case.op, [])) < FEW:
                found[case.op].append(case)
    return [*(case for cases in found.values() for case in cases), *fused_cases(), *recurrent_cases()]


CASES = _cases()


@functools.cache
def _outcome(place: int) -> gradients.Outcome:
    return gradients.examine(CASES[place])


@pytest.mark.parametrize("place", range(len(CASES)), ids=lambda place: CASES[place].name)
def test_the_gradient_is_that_of_finite_differences(place: int) -> None:
    outcome = _outcome(place)
    assert outcome.status != gradients.WRONG, outcome.detail


def test_most_operator_tests_are_exact() -> None:
    """A rule that refused everything would never be wrong."""
    statuses = [_outcome(place).status for place in range(len(CASES))]
    assert statuses.count(gradients.PASSED) >= 0.8 * len(statuses)


@pytest.mark.long
def test_no_operator_test_is_wrong() -> None:
    wrong: Mapping[str, str] = {
        o.case: o.detail for o in gradients.outcomes(history=True) if o.status == gradients.WRONG
    }
    assert not {k: v for k, v in wrong.items() if k.split(" ")[0] not in gradients.NOT_DIFFERENTIABLE}
