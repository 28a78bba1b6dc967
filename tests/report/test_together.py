"""The account of blocks that went together with units."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import onnxprune
from onnxprune.pipelines.prune import Outcome
from onnxprune.report import data, text, together
from tests.pipelines.test_prune_drop import faint, inputs


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return onnxprune.prune(faint(), params="55%", drop=True, data=inputs()).report


def test_lines_name_the_blocks_and_what_units_alone_would_cost(outcome: Outcome) -> None:
    (title, names), (_, errors) = together.together_lines(outcome)
    assert (title, names) == ("dropped", "1 block: layers.1")
    assert outcome.judged is not None and outcome.instead is not None
    assert f"error {outcome.judged.error:.2g}" in errors and f"error {outcome.instead.error:.2g}" in errors
    assert any("1 block: layers.1" in line for line in text.outcome(outcome))


def test_data_hold_the_same(outcome: Outcome) -> None:
    found = json.loads(json.dumps(data.outcome_json(outcome)))["dropped"]
    (block,) = found["blocks"]
    assert block["name"] == "layers.1" and block["params"] == 2 * 8 * 12
    assert outcome.judged is not None and outcome.instead is not None
    assert (found["error"], found["units_alone"]) == (outcome.judged.error, outcome.instead.error)


def test_nothing_is_said_where_nothing_was_asked_or_nothing_went(outcome: Outcome) -> None:
    none = replace(outcome, dropped=None, instead=None)
    assert [title for title, _ in together.together_lines(none)] == ["dropped"] and together.together_data(none) is None
    unasked = replace(none, plan=replace(outcome.plan, options={}))
    assert together.together_lines(unasked) == []
