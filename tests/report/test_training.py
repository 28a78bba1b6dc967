"""The account of a training run."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxprune.recovery import Training
from onnxprune.recovery.training_state import Judgement
from onnxprune.report import training as report
from tests.report.runs import plain

DONE = Training(
    loss="mse", steps=100, rate=1e-3, found={}, before=0.5, after=0.25, course=[Judgement(50, 0.4, 0.3)], best=50,
    skipped=0, trained=1234, blocked={}, samples=90, held=10, seconds=1.23456,
)  # fmt: skip


def test_lines_say_what_was_done_and_gained() -> None:
    said = dict(report.training_entries(DONE))
    assert said["trained"] == "1,234 weights on 90 samples, 10 others judge"
    assert said["steps"] == "100 with mse, learning rate 0.001"
    assert said["held out"] == "0.5 -> 0.25 (-50.0%), best after 50 steps"


def test_trials_skipped_steps_and_frozen_weights_are_told() -> None:
    said = dict(
        report.training_entries(replace(DONE, found={1e-3: 0.3, 1e-2: 0.4}, skipped=2, blocked={"w": "no gradient"}))
    )
    assert "by 2 short trials" in said["steps"] and "2 skipped" in said["steps"]
    assert said["frozen"] == "1 weights without a gradient: w (no gradient)"


def test_no_gain_is_no_gain() -> None:
    said = dict(report.training_entries(replace(DONE, best=0)))
    assert said["held out"] == "0.5, and no step made it less: the weights are as they were"
    assert report.training_entries(None) == [] == report.choosing_entries(None)


def test_a_choice_while_training() -> None:
    ((name, said),) = report.choosing_entries(DONE)
    assert name == "chosen" and "held out 0.5 with the first choice, 0.25 with the last one" in said


def test_data_have_no_number_that_is_none() -> None:
    odd = replace(DONE, found={1e-2: math.inf}, course=[Judgement(50, math.nan, 0.3)])
    found = plain(report.training_data(odd))
    assert found["found"] == [{"rate": 0.01, "held": None}] and found["course"][0]["loss"] is None
    assert found["seconds"] == 1.235
