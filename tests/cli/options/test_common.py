"""What commands that change a model write, and what they refuse before any work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from onnxprune.cli.options.common import Results
from onnxprune.cli.options.reporting import Reporting
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.rewriting import Plan
from tests.cli.conftest import DIGITS


def results(tmp_path: Path, **given) -> Results:
    plain = Results(DIGITS, str(tmp_path / "out.onnx"), False, False, Reporting(None, None, False), None)
    return dataclasses.replace(plain, **given)


def test_an_output_is_asked_for_unless_nothing_is_written(tmp_path: Path) -> None:
    results(tmp_path).check_results("small.onnx")
    results(tmp_path, output=None, dry_run=True).check_results("small.onnx")
    with pytest.raises(UsageError, match="-o FILE is missing") as caught:
        results(tmp_path, output=None).check_results("small.onnx")
    assert "-o small.onnx" in (caught.value.hint or "")


def test_what_is_there_is_not_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_text("precious")
    with pytest.raises(UsageError):
        results(tmp_path).check_results("small.onnx")
    results(tmp_path, force=True).check_results("small.onnx")
    with pytest.raises(UsageError):
        results(tmp_path, output=DIGITS, force=True).check_results("small.onnx")


def test_a_plan_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--plan-out needs a file") as caught:
        results(tmp_path, plan_out="-").check_results("small.onnx", plan_hint="`onnxprune plan` writes it")
    assert caught.value.hint == "`onnxprune plan` writes it"


def test_model_and_texts_appear_together_or_not_at_all(tmp_path: Path) -> None:
    class Quiet:
        def progress(self, stage: str) -> None:
            assert stage == "writing"

    made = results(tmp_path, plan_out=str(tmp_path / "plan.json"))
    made.write(Quiet(), load(DIGITS), made.plan_text(Plan(())))  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "plan.json"]
    nothing = results(tmp_path, output=str(tmp_path / "other.onnx"), dry_run=True)
    nothing.write(Quiet(), load(DIGITS), {})  # type: ignore[arg-type]
    assert nothing.written is None and not (tmp_path / "other.onnx").exists()
    assert results(tmp_path, plan_out="p.json", dry_run=True).plan_text(Plan(())) == {}
