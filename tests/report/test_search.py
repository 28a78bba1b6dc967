"""The models that a search tried, as lines."""

from __future__ import annotations

from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines.search import search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.search_trials import SearchConfig
from onnxprune.recovery import RecoveryOptions
from onnxprune.report import search as report
from tests.report.runs import DIGITS, MODELS


def test_a_row_per_trial_and_what_was_asked_and_found() -> None:
    config = SearchConfig(
        (QualityConstraint("sqnr", 6.0),), recovery=RecoveryOptions("none"), trials=3, samples=32, verify=False
    )
    found = search(load(DIGITS), Options(criterion="l2"), config, str(MODELS / "digits_calibration.npz"))
    lines = report.search_lines(found)
    rows = [line.split() for line in lines[1 : 1 + len(found.trials)]]
    assert lines[0].split() == ["trial", "MACs", "params", "sqnr", "good", "front"]
    assert sorted(int(row[0]) for row in rows) == list(range(1, len(found.trials) + 1))
    for row in rows:
        assert ("yes" in row) is found.trials[int(row[0]) - 1].good
    assert "front    * where no other trial is both smaller and better" in lines
    assert any(line.startswith("asked") and "sqnr of at least 6" in line for line in lines)
    assert any(line.startswith("found") and f"{found.values['sqnr']:.5g}" in line for line in lines)
