"""All weights up to a threshold go, however many they are."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.sparsity import METHODS, method_of
from tests.sparsity.evidence import evidence_of


def test_a_threshold_is_a_number_or_a_multiple_of_the_deviation() -> None:
    evidence = evidence_of()
    size = np.abs(evidence.weight)
    assert (method_of("threshold:0.5", data=False).make(evidence)[1] == (size > 0.5)).all()
    assert (method_of("threshold:0.5std", data=False).make(evidence)[1] == (size > 0.5 * evidence.weight.std())).all()
    evidence.weight[0, 0] = 0
    assert (method_of("threshold:0", data=False).make(evidence)[1] == (evidence.weight != 0)).all()


def test_what_is_at_the_threshold_goes() -> None:
    evidence = evidence_of()
    evidence.weight[:] = 0.25
    weight, keep = method_of("threshold:0.25", data=False).make(evidence)
    assert not keep.any() and not weight.any()


@pytest.mark.parametrize("argument", ["-1", "x", "infstd", "nan", "1e999", "std"])
def test_what_is_no_threshold_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="is no threshold"):
        method_of(f"threshold:{argument}", data=False)


def test_an_argument_is_asked_for() -> None:
    with pytest.raises(UsageError, match="not complete") as caught:
        method_of("threshold", data=False)
    assert "threshold:0.01" in (caught.value.hint or "")
    with pytest.raises(AssertionError, match="was not given its argument"):
        METHODS["threshold"].make(evidence_of())
