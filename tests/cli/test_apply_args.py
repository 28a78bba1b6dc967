"""What `apply` is asked for is checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import DIGITS, Run


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        (DIGITS, ("-o", "{}/small.onnx", "--zero", "--data", "random"), "leaves nothing to re-fit"),
        (DIGITS, ("-o", "-", "--json"), "cannot both go to standard output"),
        (DIGITS, ("-o", "{}/plan.json"), "is the input"),
        (DIGITS, ("-o", "{}/nowhere/small.onnx"), "no such folder"),
        ("-", ("-o", "{}/small.onnx"), "only one of the inputs can come from standard input"),
    ],
)
def test_what_cannot_work_is_refused(run: Run, tmp_path: Path, model: str, more: tuple[str, ...], said: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text("{}")
    ran = run("apply", model, "-" if model == "-" else plan, *(text.format(tmp_path) for text in more))
    assert ran.code == 2 and said in ran.err and [*tmp_path.iterdir()] == [plan]


def test_new_numbers_of_rows_need_a_place(run: Run, tmp_path: Path) -> None:
    """It is refused before the model is read."""
    (tmp_path / "plan.json").write_text(
        '{"format": "onnxprune-plan", "version": 1, "source": {}, "options": {"rows": ["a"]}, "barriers": [],'
        ' "groups": [{"name": "g", "remove": [0], "size": 2, "units": 2}]}'
    )
    (tmp_path / "small.onnx.rows.json").write_text("")
    ran = run("apply", tmp_path / "nothing.onnx", tmp_path / "plan.json", "-o", tmp_path / "small.onnx")
    assert ran.code == 2 and "small.onnx.rows.json exists" in ran.err
