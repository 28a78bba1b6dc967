"""`plan`: what would be removed."""

from __future__ import annotations

import json

from tests.cli.conftest import DIGITS, MODELS, widths


def test_plan_then_apply_is_prune(run, small, tmp_path):
    ran = run("plan", DIGITS)
    assert (ran.code, ran.err, ran.json["format"]) == (0, "", "onnxprune-plan")
    assert ran.out == (tmp_path / "plan.json").read_text()
    ran = run("apply", DIGITS, "-", "-o", tmp_path / "applied.onnx", stdin=ran.raw)
    assert ran.code == 0 and "proof    equal" in ran.out and "4 of 4 groups" in ran.out
    assert (tmp_path / "applied.onnx").read_bytes() == small.read_bytes()


def test_plan_to_a_file_is_edited_and_applied(run, tmp_path):
    ran = run("plan", DIGITS, "-o", tmp_path / "plan.json", "--ratio", 0.1)
    assert ran.code == 0 and "pruned" in ran.out
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["groups"] = [g | {"remove": [0, 5]} for g in plan["groups"] if g["name"] == "conv.weight"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    ran = run("apply", DIGITS, tmp_path / "plan.json", "-o", tmp_path / "small.onnx", "--json")
    assert ran.code == 0 and ran.json["groups"][0]["removed"] == 2 and ran.json["proof"]["ok"]
    assert widths(tmp_path / "small.onnx")["conv.weight"][0] == 30


def test_plan_by_a_criterion_that_needs_data(run):
    ran = run("plan", DIGITS, "--criterion", "wanda")
    assert ran.code == 2 and "--data" in ran.err
    given = "--data", MODELS / "digits_calibration.npz", "--samples", 32, "--aggregate", "max"
    options = run("plan", DIGITS, "--criterion", "wanda", *given).json["options"]
    assert (options["criterion"], options["aggregate"], options["normalize"]) == ("wanda", "max", None)
