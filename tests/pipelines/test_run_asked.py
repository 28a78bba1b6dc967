"""Which way of pruning the options ask for."""

from __future__ import annotations

import pytest

from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines import prune
from onnxprune.pipelines.run_asked import run_asked
from tests.pipelines.test_prune_drop import DIGITS, faint, inputs


def test_units_alone_are_pruned_as_ever() -> None:
    options = Options(ratio=0.5)
    assert run_asked(load(DIGITS), options).model.proto == prune.run(load(DIGITS), options).model.proto


def test_blocks_go_where_they_are_asked_for() -> None:
    assert run_asked(load(faint()), Options(params="55%", drop=True), data=inputs()).plan.bypasses
    with pytest.raises(TypeError):
        run_asked(load(DIGITS), Options(), colour="red")


def test_a_caller_that_takes_the_other_door_is_told() -> None:
    with pytest.raises(ValueError, match="run_asked"):
        prune.run(load(faint()), Options(params="55%", drop=True), data=inputs())
