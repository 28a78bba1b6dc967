"""The account of dead units."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxprune.layers import Mask
from onnxprune.proof import Verdict
from onnxprune.report import shrink as report
from tests.report.runs import plain, shrunk


def test_a_model_without_dead_units_says_so() -> None:
    lines = report.lines(shrunk())
    assert "no unit is dead" in lines and any(line.startswith("proof") for line in lines)


def test_dead_nodes_and_reasons_are_counted() -> None:
    done = replace(shrunk(), dead={"nodes": 2, "initializers": 0}, stays={"g": {"it is read whole": 3}})
    lines = report.lines(done)
    assert any("2 nodes that no output depends on" in line for line in lines)
    assert any("3 units of g: it is read whole" in line for line in lines)


def test_zeros_across_units_are_worth_a_word_where_they_are_many() -> None:
    few, many = (replace(shrunk(), mask=Mask(z, 1000, 0)) for z in (int(1000 * report.MANY) - 1, 600))
    assert not any("of the weights are zero" in line for line in report.lines(few))
    assert any("60" in line and "of the weights are zero" in line for line in report.lines(many))


@pytest.mark.parametrize("ok", [True, False])
def test_a_proof_of_equality(ok: bool) -> None:
    verdict = Verdict(ok, 1e-9, 1e-6, "y differs", {}, checks=("a", "b", "3 random inputs", "the data"))
    said = report.proof_of_equality(verdict)
    equal = "equal to 3 random inputs and the data, largest error 1e-09 (tolerance 1.0e-06)"
    assert said == (equal if ok else "failed: y differs")


def test_data_are_the_same_figures() -> None:
    found = plain(report.document(shrunk()))
    assert found["removed"] == [] and found["proof"]["ok"] is True and found["dead"] == {"nodes": 0, "initializers": 0}
    assert found["zeros"]["elements"] > 0 and found["rounds"] == shrunk().rounds
