"""The published schema of reports takes what `prune --json` prints, in every form that it has."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from onnxprune.cli import main
from onnxprune.report.data import VERSION, header

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "report.json").read_text(encoding="utf-8"))


def printed(*arguments: str) -> dict:
    text = io.StringIO()
    with redirect_stdout(text):
        assert main(["prune", str(MODELS / "digits.onnx"), "--dry-run", "--json", "-q", *arguments]) == 0
    return json.loads(text.getvalue())


def test_it_is_a_schema_of_this_version() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    told = {name: SCHEMA["properties"][name]["const"] for name in ("format", "version")}
    assert told == header("report") and told["version"] == VERSION


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ratio", "0.5"),
        ("--macs", "50%", "--no-verify"),
        ("--ratio", "0.5", "--data", str(MODELS / "digits_calibration.npz"), "--samples", "48"),
    ],
    ids=["plain", "not proven", "repaired"],
)
def test_reports_are_what_it_says(arguments: tuple[str, ...]) -> None:
    report = printed(*arguments)
    jsonschema.validate(report, SCHEMA)
    assert {*SCHEMA["properties"]} <= {*report}
    if "--data" in arguments:
        assert report["repair"]["fitted"] + report["repair"]["held"] == 48
    for wrong in ({"format": "another"}, {"before": {}}, {"proof": {"ok": "yes"}}):
        assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(report | wrong))
