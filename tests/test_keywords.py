"""Keyword arguments are those of the options that they stand for, and misspelt ones are told."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

import onnxprune
from onnxprune import keywords
from onnxprune.allocation import Options
from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.errors import RunError, UsageError
from onnxprune.names import AUTO_BUDGETS, BLOCK_BUDGETS, SYNONYMS
from onnxprune.pipelines.auto_search import AutoOptions
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.sparsity import SparsifyOptions
from tests.cli.conftest import DIGITS
from tests.structure.tree import ROOT

# What `auto` makes of its keywords, or has parameters for; and what says how models are judged.
AUTO_OWN = {"budgets", "floor", "wanted", "seconds", "folder"}
JUDGED = {"labels", "metrics", "output", "evaluate"}


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("verb", "listed", "wanted"),
    [
        ("prune", keywords.UnitKeywords, names(Options) - {"ratio", "criterion"}),
        ("make_plan", keywords.ChoiceKeywords, names(Options) - {"ratio"}),
        ("sensitivity", keywords.CurveKeywords, names(Options) - {"ratios", "cache", "drop", "exchanges"}),
        ("sparsify", keywords.ZeroKeywords, names(SparsifyOptions) - {"sparsity"}),
        ("drop", keywords.BlockKeywords, names(DropOptions) - {"budgets"} | {*BLOCK_BUDGETS}),
        ("compress", keywords.ProductKeywords, names(LowRankOptions)),
        (
            "auto",
            keywords.AutoKeywords,
            names(AutoOptions) - AUTO_OWN | {*AUTO_BUDGETS, "max_drop", "min_sqnr"} | JUDGED,
        ),
        ("train", keywords.TrainingKeywords, names(onnxprune.TrainingOptions) - {"steps"}),
    ],
)
def test_keywords_are_the_fields_of_the_options(verb: str, listed: Any, wanted: set[str]) -> None:
    assert {*get_type_hints(listed)} == wanted
    (rest,) = [p for p in inspect.signature(getattr(onnxprune, verb)).parameters.values() if p.kind is p.VAR_KEYWORD]
    assert rest.annotation == f"Unpack[{listed.__name__}]"


@pytest.mark.parametrize(
    ("verb", "wrong", "meant"),
    [
        ("prune", "mcas", "macs"),
        ("prune", "ratioss", "ratios"),
        ("prune", "recoverys", "recovery"),
        ("prune", "sample", "samples"),
        ("make_plan", "round_too", "round_to"),
        ("sensitivity", "evaluat", "evaluate"),
        ("sparsify", "patern", "pattern"),
        ("drop", "block", "blocks"),
        ("compress", "rank", "ranks"),
        ("auto", "min_snr", "min_sqnr"),
        ("train", "jobs", "workers"),
    ],
)
def test_a_misspelt_keyword_is_told_with_the_one_that_is_meant(verb: str, wrong: str, meant: str) -> None:
    more = {"data": DIGITS, "steps": 1} if verb == "train" else {}
    with pytest.raises(TypeError, match=f"unknown keyword argument '{wrong}': did you mean '{meant}'"):
        getattr(onnxprune, verb)(DIGITS, **more, **{wrong: 1})


def test_words_of_the_command_line_and_of_other_tools_are_taken() -> None:
    plain = onnxprune.prune(DIGITS, 0.25, ratios={"fc.*": 0.5}, recovery="none", verify=False)
    other = onnxprune.prune(DIGITS, prune_ratio=0.25, ratio_for={"fc.*": 0.5}, recover="none", verify=False)
    assert other.plan.steps == plain.plan.steps
    assert onnxprune.make_plan(DIGITS, amount=0.25, exclude=["fc*"]).steps == (
        onnxprune.make_plan(DIGITS, 0.25, keep=["fc*"]).steps
    )
    zeros = onnxprune.sparsify(DIGITS, amount=0.5, verify=False).plan
    assert zeros.to_json() == onnxprune.sparsify(DIGITS, 0.5, verify=False).plan.to_json()


def test_auto_takes_them_too() -> None:
    """The data, and a measure of one's own, which is asked for the original before anything is tried."""
    with pytest.raises(UsageError, match="random inputs tell nothing"):
        onnxprune.auto(DIGITS, calibration_data="random", size="50%", time=1)
    with pytest.raises(RunError, match="exit code 3"):
        onnxprune.auto(DIGITS, size="50%", time=1, eval="exit 3 # {model}")
    with pytest.raises(TypeError, match="unknown keyword argument 'lattency': did you mean 'latency'"):
        onnxprune.auto(DIGITS, lattency="50%")
    with pytest.raises(TypeError, match="unknown keyword argument 'exclude': known: "):
        onnxprune.auto(DIGITS, exclude=["fc*"])


def test_two_words_for_one_thing_are_one_too_many() -> None:
    with pytest.raises(TypeError, match="unknown keyword argument 'amount': did you mean 'ratio'"):
        onnxprune.prune(DIGITS, ratio=0.25, amount=0.5)
    with pytest.raises(TypeError, match="multiple values"):
        onnxprune.prune(DIGITS, 0.25, amount=0.5)
    # A way to repair is no switch.
    with pytest.raises(TypeError, match="unknown keyword argument 'recovery': did you mean 'recover'"):
        onnxprune.sparsify(DIGITS, 0.5, recovery="none")


def test_no_word_stands_in_two_rows() -> None:
    words = [word for row in SYNONYMS for word in row]
    assert len(words) == len(set(words))
    assert keywords.synonym("amount", {"ratio", "sparsity"}) is None, "two are meant"


def test_a_word_like_no_other_lists_all() -> None:
    with pytest.raises(TypeError, match=r"known: .*sparsity"):
        onnxprune.sparsify(DIGITS, xyzzy=1)  # type: ignore[call-arg]


def test_a_type_checker_sees_them(tmp_path) -> None:
    """Both a wrong name and a wrong type."""
    pytest.importorskip("mypy")
    script = tmp_path / "user.py"
    script.write_text(
        "import onnxprune\n"
        "onnxprune.prune('m.onnx', macs='50%', keep=['fc*'])\n"
        "onnxprune.prune('m.onnx', mcas='50%')\n"
        "onnxprune.prune('m.onnx', heads='no')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT.parent / "pyproject.toml"), str(script)],
        capture_output=True, text=True, check=False, cwd=ROOT.parent,
    )  # fmt: skip
    wrong = [line for line in done.stdout.splitlines() if "user.py" in line]
    assert any(":3: error" in line and "mcas" in line for line in wrong), done.stdout
    assert any(":4: error" in line and "heads" in line for line in wrong), done.stdout
    assert not any(":2: error" in line for line in wrong)
