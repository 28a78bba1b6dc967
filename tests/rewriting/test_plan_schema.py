"""The published schema of plans takes the plans of every verb, and refuses what reading a plan refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.rewriting import plan_json

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits.onnx"
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "plan.json").read_text(encoding="utf-8"))
JUDGE = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema_of_this_version() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    told = SCHEMA["properties"]
    assert (told["format"]["const"], told["version"]["const"]) == (plan_json.FORMAT, plan_json.VERSION)
    assert {*SCHEMA["$defs"]["step"]["properties"]["kind"]["enum"]} == {*plan_json._OF}


@pytest.mark.parametrize(
    "made",
    [
        lambda: onnxprune.make_plan(DIGITS, 0.5),
        lambda: onnxprune.sparsify(DIGITS, pattern="2:4").plan,
        lambda: onnxprune.drop(DIGITS, count=1).plan,
        lambda: onnxprune.compress(DIGITS, ranks={"fc.weight": 16}, allow_slower=True).plan,
    ],
    ids=["prune", "sparsify", "drop", "compress"],
)
def test_plans_of_the_verbs(made: Callable[[], onnxprune.Plan]) -> None:
    assert JUDGE.is_valid(json.loads(made().to_json()))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"version": 2},
        {"groups": {}},
        {"groups": [{"remove": [0], "units": 1, "size": 1}]},
        {"groups": [{"name": "a", "units": 1, "size": 1, "remove": "all"}]},
        {"steps": [{"kind": "explode"}]},
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused_by_both(change: dict[str, Any]) -> None:
    raw = json.loads(onnxprune.make_plan(DIGITS, 0.5).to_json()) | change
    assert not JUDGE.is_valid(raw)
    with pytest.raises(UsageError):
        onnxprune.Plan.from_json(json.dumps(raw))
