"""Plans as text, and text that is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.rewriting import Plan
from tests.graphs.net import shapes_of
from tests.rewriting.planned import edited


def test_text_and_back(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    assert [(s.group, s.remove, s.units, s.size, s.exact) for s in again.steps] == [
        (s.group, s.remove, s.units, s.size, s.exact) for s in plan.steps
    ]
    assert Plan.from_json(plan.to_json().encode()).steps == again.steps


def test_text_says_what_the_plan_is(plan: Plan, proto: onnx.ModelProto) -> None:
    raw = json.loads(plan.to_json())
    assert (raw["format"], raw["version"]) == ("onnxprune-plan", 1)
    assert raw["source"]["digest"].startswith("sha256:")
    assert raw["options"]["ratio"] == 0.5
    group = raw["groups"][0]
    assert group["name"] == "stem"
    assert group["units"] == 4
    assert len(group["scores"]) == group["size"] == 8
    members = {(m["tensor"], m["axis"]): m for m in group["members"]}
    assert set(members) >= {("stem", 0), ("bias", 0), ("ones", 0), ("grouped", 1)}
    small = shapes_of(onnxprune.apply(proto, plan))
    assert len(members["stem", 0]["removed"]) == 8 - small["stem"][0]
    reasons = {b["reason"] for b in raw["barriers"]}
    assert "graph input 'x'" in reasons


def test_lists_of_numbers_are_on_one_line(plan: Plan) -> None:
    lines = [line for line in plan.to_json().splitlines() if '"remove"' in line]
    assert lines
    assert all("]" in line for line in lines)


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda raw: raw.update(format="other"), "$.format"),
    "version": (lambda raw: raw.update(version=99), "$.version"),
    "groups": (lambda raw: raw.update(groups={}), "$.groups"),
    "group": (lambda raw: raw["groups"].__setitem__(1, 5), "$.groups[1]"),
    "name": (lambda raw: raw["groups"][0].pop("name"), "$.groups[0].name"),
    "size": (lambda raw: raw["groups"][0].update(size=0), "$.groups[0].size"),
    "units": (lambda raw: raw["groups"][0].update(units="8"), "$.groups[0].units"),
    "remove": (lambda raw: raw["groups"][0].update(remove=[1, "2"]), "$.groups[0].remove"),
    "remove-bool": (lambda raw: raw["groups"][0].update(remove=[True]), "$.groups[0].remove"),
    "remove-float": (lambda raw: raw["groups"][0].update(remove=[1.5]), "$.groups[0].remove"),
    "remove-text": (lambda raw: raw["groups"][0].update(remove="1"), "$.groups[0].remove"),
    "scores": (lambda raw: raw["groups"][0].update(scores=["a"]), "$.groups[0].scores"),
    "layout": (lambda raw: raw["groups"][0].update(layout="x"), "$.groups[0].layout"),
    "members": (lambda raw: raw["groups"][0].update(members=[1]), "$.groups[0].members"),
    "source": (lambda raw: raw.update(source=[]), "$.source"),
    "files": (lambda raw: raw["source"].update(files={"decoder": 1}), "$.source.files"),
    "options": (lambda raw: raw.update(options=3), "$.options"),
    "sizes": (lambda raw: raw["options"].update(sizes={"batch": 0}), "$.options.sizes"),
    "barriers": (lambda raw: raw.update(barriers={}), "$.barriers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_offence_is_named_by_its_place(plan: Plan, name: str) -> None:
    edit, place = BROKEN[name]
    with pytest.raises(UsageError) as caught:
        edited(plan, edit)
    assert caught.value.message.startswith("bad plan: ")
    assert caught.value.message.endswith(f"@ {place}")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"plan"', "[" * 100_000, b"\xff\xfe", "{}"])
def test_text_that_is_no_plan(text: Any) -> None:
    with pytest.raises(UsageError, match="plan"):
        Plan.from_json(text)
