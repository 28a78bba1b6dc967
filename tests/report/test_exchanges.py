"""The account of exchanges between groups."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import onnxprune
from onnxprune.pipelines.prune import Outcome
from onnxprune.report import data, exchanges, text
from tests.cli.conftest import DIGITS, MODELS


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    calibration = str(MODELS / "digits_calibration.npz")
    return onnxprune.prune(DIGITS, macs="30%", data=calibration, samples=64, exchanges=4).report


def test_lines_say_how_many_were_kept_and_what_they_gave(outcome: Outcome) -> None:
    done = outcome.exchanged
    assert done is not None and done.tried == 4 and 0 < done.kept <= 4
    ((title, said),) = exchanges.exchange_lines(outcome)
    assert title == "exchange" and said.startswith(f"{done.kept} of 4 kept")
    assert f"error {done.before.error:.2g}" in said and f"error {done.after.error:.2g}" in said
    assert any(said in line for line in text.outcome(outcome))
    nothing = replace(outcome, exchanged=replace(done, kept=0))
    assert exchanges.exchange_lines(nothing) == [("exchange", "0 of 4 kept")]


def test_data_hold_the_same(outcome: Outcome) -> None:
    done = outcome.exchanged
    assert done is not None
    found = json.loads(json.dumps(data.outcome_json(outcome)))["exchanges"]
    assert found == {"tried": 4, "kept": done.kept, "before": done.before.error, "after": done.after.error}


def test_nothing_is_said_where_none_were_tried(outcome: Outcome) -> None:
    none = replace(outcome, exchanged=None)
    assert exchanges.exchange_lines(none) == [] and exchanges.exchange_data(none) is None
