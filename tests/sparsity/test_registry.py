"""Methods by name, and what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.names import MASKINGS
from onnxprune.sparsity import METHODS, method_of
from onnxprune.sparsity.registry import DAMPING, masking, scoring
from tests.sparsity.evidence import evidence_of


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wnada", "nothing is called"),
        ("wanda:3", "takes no argument"),
        ("wanda", "needs inputs"),
    ],
)
def test_methods_that_cannot_work_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        method_of(text, data=False)


def test_auto_goes_by_the_data() -> None:
    assert method_of("auto", data=True) is METHODS["alps"] and method_of("auto", data=False) is METHODS["magnitude"]


def test_decorated_functions_are_methods_with_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.sparsity.registry.METHODS", {})
    from onnxprune.sparsity import registry

    @scoring("first", source="A, 2024")
    def first(evidence):
        """The first inputs go.

        More about it.
        """
        return np.broadcast_to(np.arange(evidence.weight.shape[1])[None, :, None] + 1.0, evidence.weight.shape)

    @masking("all", needs_data=True, refits=True)
    def everything(evidence):
        """Everything stays."""
        return evidence.weight, evidence.weight != 0

    made = registry.METHODS["first"]
    assert (made.summary, made.source, made.needs_data, made.refits) == ("The first inputs go", "A, 2024", False, False)
    assert (registry.METHODS["all"].needs_data, registry.METHODS["all"].refits) == (True, True)
    evidence = evidence_of()
    keep = made.make(evidence)[1]
    assert not keep[:, :6].any() and keep[:, 6:].all()


def test_evidence_is_ridge_regression() -> None:
    """The ridge is a share of the mean of the diagonal, and draws towards the weights that are there."""
    evidence = evidence_of()
    ridge = DAMPING * np.trace(evidence.second[0]) / 12
    assert np.allclose(evidence.hessian[0], evidence.second[0] + ridge * np.eye(12))
    assert np.allclose(evidence.dense, evidence.weight), "inputs of the original: the weights are best as they are"
    assert np.allclose(evidence.deviation[0, :, 0] ** 2, np.diagonal(evidence.hessian[0]))
    assert not np.allclose(evidence_of(moved=1.0).dense, evidence.weight)


def test_a_choice_in_parts_ends_where_the_pattern_allows() -> None:
    assert evidence_of("2:4").bounds[-1] == 12 and all(b % 4 == 0 for b in evidence_of("2:4").bounds)


def test_dead_weights_stay_dead() -> None:
    evidence = evidence_of(share=0.25)
    evidence.weight[0, :6, 2] = 0
    assert not evidence.choose(np.ones(evidence.weight.shape))[0, :6, 2].any()


def test_every_name_of_the_command_line_is_one() -> None:
    assert {*MASKINGS} == set(METHODS)
