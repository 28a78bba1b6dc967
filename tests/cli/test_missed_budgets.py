"""What is said of budgets that were missed, and of outputs that are ruined."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from types import SimpleNamespace
from typing import Any

import click
import pytest

from onnxprune import api
from onnxprune.allocation import BudgetResult, Options
from onnxprune.cli.missed_budgets import check, damage_last
from onnxprune.cli.output import Console
from onnxprune.errors import GoalMissed
from tests.cli.conftest import DIGITS


def result(kind: str, most: float, reached: float, before: float = 100.0) -> BudgetResult:
    return BudgetResult(kind=kind, before=before, most=most, reached=reached)


def test_budgets_that_are_met_are_no_error() -> None:
    check([result("macs", 50.0, 49.0)], api.trace(DIGITS), Options(macs="50%"))


def test_the_worst_one_says_what_keeps_it_up() -> None:
    groups = api.trace(DIGITS)
    options = Options(macs="10%", params="50%", keep=["conv*"])
    goals = [result("macs", 10.0, 40.0), result("params", 50.0, 55.0)]
    with pytest.raises(GoalMissed) as caught:
        check(goals, groups, options)
    assert "MACs" in caught.value.message and "params" in caught.value.message
    hint = caught.value.hint or ""
    assert "of the weights are locked" in hint and "can be reached without --keep" in hint


def said(ruin: str, *, accepted: bool, missed: bool = False) -> tuple[str, int]:
    """What stands on the error stream in the end, and the exit code."""
    stream, code = io.StringIO(), 0
    judged: Any = SimpleNamespace(ruin=ruin) if ruin else None
    with redirect_stderr(stream):
        try:
            with damage_last(Console(), judged, accepted=accepted):
                if missed:
                    raise GoalMissed("the budget was missed")
        except click.exceptions.Exit as error:
            code = error.exit_code
        except GoalMissed:
            code = -1
    return stream.getvalue(), code


def test_ruin_is_said_last_and_is_a_missed_goal() -> None:
    text, code = said("no better than chance", accepted=False)
    assert "no better than chance: remove less" in text and code == 1
    text, code = said("no better than chance", accepted=False, missed=True)
    assert text.index("the budget was missed") < text.index("no better than chance") and code == 1


def test_damage_that_is_accepted_is_a_warning() -> None:
    text, code = said("no better than chance", accepted=True)
    assert "no better than chance" in text and "remove less" not in text and code == 0
    assert said("no better than chance", accepted=True, missed=True)[1] == 1


def test_without_damage_errors_are_what_they_are() -> None:
    assert said("", accepted=False) == ("", 0) and said("", accepted=False, missed=True)[1] == -1
