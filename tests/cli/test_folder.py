"""`onnxprune prune FOLDER -o FOLDER`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.graphs.folders import write_decoder, write_pair


def test_a_folder_goes_into_a_folder(run: Run, tmp_path: Path) -> None:
    source, small = write_pair(tmp_path / "whole"), tmp_path / "small"
    page, plan = tmp_path / "page.html", tmp_path / "plan.json"
    ran = run("prune", source, "-o", small, "-r", "0.5", "--report", page, "--plan-out", plan)
    assert ran.code == 0, ran.err
    assert "changed  output encoder_model/last_hidden_state: axis 2 8 -> 4" in ran.out
    assert json.loads((small / "config.json").read_text())["num_key_value_heads"] == 2
    assert page.exists() and json.loads(plan.read_text())["format"] == "onnxprune-plan"
    again = run("prune", source, "-o", small, "-r", "0.5")
    assert again.code == 2 and "exists" in again.err
    assert run("prune", source, "-o", small, "-r", "0.25", "--force", "--json").json["output"] == str(small)
    assert json.loads((small / "config.json").read_text())["num_key_value_heads"] == 3


def test_tokens_go_by_name(run: Run, tmp_path: Path) -> None:
    source, ids = write_decoder(tmp_path / "whole"), tmp_path / "ids.txt"
    ids.write_text("3 4 5 9")
    ran = run("prune", source, "-o", tmp_path / "small", "-r", "0", "--rows", f"vocab_size={ids}")
    assert ran.code == 0 and "changed  output logits: axis 2 40 -> 6" in ran.out
    assert json.loads((tmp_path / "small" / "config.json").read_text())["vocab_size"] == 6


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    before = sorted(tmp_path.rglob("*"))
    assert run("prune", source, "--dry-run").code == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "-o FOLDER is missing"),
        (("-o", "-"), "-o FOLDER is missing"),
        (("-o", "{}/whole/inside"), "not apart"),
        (("-o", "{}/small", "--shape", "input_ids=1x2"), "--shape: only for a single file"),
        (("-o", "{}/small", "--drop", "--data", "random", "--macs", "50%"), "--drop: only for a single file"),
        (("-o", "{}/small", "--report", "{}/nowhere/page.html"), "no such folder"),
    ],
)
def test_requests_that_are_refused(run: Run, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    source = write_decoder(tmp_path / "whole")
    before = sorted(tmp_path.rglob("*"))
    ran = run("prune", source, *(text.format(tmp_path) for text in more))
    assert ran.code == 2 and said in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_of_a_folder(run: Run, tmp_path: Path) -> None:
    source, plan, small = write_pair(tmp_path / "whole"), tmp_path / "plan.json", tmp_path / "small"
    made = run("plan", source, "-o", plan, "-r", "0.5")
    assert made.code == 0 and "pruned" in made.out, made.err
    ran = run("apply", source, plan, "-o", small, "--report", tmp_path / "page.html")
    assert ran.code == 0, ran.err
    assert "changed  output encoder_model/last_hidden_state: axis 2 8 -> 4" in ran.out and "proof    equal" in ran.out
    assert json.loads((small / "config.json").read_text())["num_key_value_heads"] == 2
    again = run("apply", source, plan, "-o", small)
    assert again.code == 2 and "exists" in again.err
    other = write_decoder(tmp_path / "other")
    refused = run("apply", other, plan, "-o", tmp_path / "wrong")
    assert refused.code == 2 and "the plan was made for other graphs" in refused.err
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("verb", "more", "said"),
    [
        ("plan", ("--shape", "input_ids=1x2"), "--shape: only for a single file"),
        ("plan", ("-o", "{}/whole/nowhere/plan.json"), "no such folder"),
        ("apply", ("{}/plan.json", "-o", "-"), "a folder goes into a folder"),
        ("apply", ("{}/plan.json", "-o", "{}/whole/inside"), "not apart"),
        ("apply", ("{}/plan.json", "-o", "{}/small", "--zero", "--data", "random"), "leaves nothing to re-fit"),
        ("apply", ("{}/nothing.json", "-o", "{}/small"), "no such file"),
    ],
)
def test_plans_that_are_refused(run: Run, tmp_path: Path, verb: str, more: tuple[str, ...], said: str) -> None:
    source = write_decoder(tmp_path / "whole")
    (tmp_path / "plan.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    ran = run(verb, source, *(text.format(tmp_path) for text in more))
    assert ran.code == 2 and said in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_layers_of_a_folder(run: Run, tmp_path: Path) -> None:
    source, small = write_decoder(tmp_path / "whole"), tmp_path / "small"
    listed = run("drop", source, "--list", "--json").json["blocks"]
    whole = [block for block in listed if block["kind"] == "block"]
    assert [block["name"] for block in whole] == ["layers.0", "layers.1"] and not any(b.get("why") for b in whole)
    ran = run("drop", source, "-o", small, "--count", "1", "--plan-out", tmp_path / "plan.json")
    assert ran.code == 0, ran.err
    assert "dropped  1 block of 2: layers.0" in ran.out and "past_key_values.1.key -> past_key_values.0.key" in ran.out
    assert json.loads((small / "config.json").read_text())["num_hidden_layers"] == 1
    assert json.loads((tmp_path / "plan.json").read_text())["format"] == "onnxprune-plan"


@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        (("--count", "1"), "-o FOLDER is missing", 2),
        (("-o", "{}/small"), "nothing says what to drop", 2),
        (("-o", "{}/small", "--blocks", "nothing"), "no block is called", 2),
        (("-o", "{}/whole/inside", "--count", "1"), "not apart", 2),
    ],
)
def test_drops_that_are_refused(run: Run, tmp_path: Path, more: tuple[str, ...], said: str, code: int) -> None:
    source = write_decoder(tmp_path / "whole")
    before = sorted(tmp_path.rglob("*"))
    ran = run("drop", source, *(text.format(tmp_path) for text in more))
    assert ran.code == code and said in ran.err
    assert sorted(tmp_path.rglob("*")) == before
