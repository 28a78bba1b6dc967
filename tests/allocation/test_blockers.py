"""The options that keep a budget from being met are named, and what relaxing each would save is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import onnxprune
from onnxprune.allocation import Options
from onnxprune.allocation.blockers import blocking_options
from tests.cli.conftest import Run, run

__all__ = ["run"]

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.mark.parametrize(
    ("given", "named", "silent"),
    [
        ((), ["with --max-ratio 0.999"], ["--round-to", "--keep"]),
        (("--max-ratio", "0.999"), [], ["--max-ratio", "can be reached"]),
        (("--round-to", "32"), ["with --round-to 1"], ["--keep"]),
        (("--keep", "conv_1*"), ["without --keep", "with --max-ratio 0.999"], ["--only"]),
        (("--only", "fc*", "--exact-only"), ["without --only"], ["--exact-only"]),
        (("--ratio-for", "conv_1*=0.1"), ["without --ratio-for"], ["--keep"]),
        (
            ("--round-to", "64", "--max-ratio", "0.1"),
            ["with --round-to 1", "with --max-ratio 0.999"],
            ["without --keep"],
        ),
    ],
)
def test_what_holds_a_budget_up_is_named(run: Run, given: tuple[str, ...], named: list[str], silent: list[str]) -> None:
    """And what is said to be reached without it is."""
    ask = ("plan", str(DIGITS), "--params", "10")
    hint = run(*ask, *given).err.splitlines()[1]
    assert all(text in hint for text in named) and not any(text in hint for text in silent), hint
    assert "of the weights are locked" in hint
    for text in named:
        how, option, *_ = text.split()
        kept = given[: given.index(option)] + given[given.index(option) + 2 :] if option in given else given
        reached = re.search(r"\(([0-9.]+) ?%\)", run(*ask, *kept, *(text.split()[1:] if how == "with" else ())).err)
        figure = re.search(rf"([0-9.]+) ?% can be reached {text}", hint)
        assert figure and reached and abs(float(figure[1]) - float(reached[1])) < 0.2


def test_options_that_only_together_hold_a_budget_up_are_named_together() -> None:
    groups = onnxprune.trace(DIGITS)
    options = Options(params="1k", round_to=512, max_ratio=0.01)
    assert set(blocking_options(groups, options, "params")) == {("round_to", "max_ratio")}
