"""Steps of a recipe: what each is given, what its result depends on, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.cli.app import STEPS
from onnxprune.cli.output import Console
from onnxprune.cli.steps import RecipeStep, StepConsole, command_of, steps_of
from onnxprune.errors import UsageError


def test_every_step_is_a_command() -> None:
    for verb in STEPS:
        assert command_of(verb).name == verb


def test_a_key_depends_on_all_that_the_result_does(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    data.write_bytes(b"one")
    step = RecipeStep(2, "prune", {"ratio": 0.5, "data": str(data)})
    first = step.key("a")
    assert step.file == "2-prune.onnx" and step.key("a") == first
    assert step.key("b") != first
    assert RecipeStep(2, "prune", {"ratio": 0.6, "data": str(data)}).key("a") != first
    assert RecipeStep(2, "shrink", step.options).key("a") != first
    data.write_bytes(b"another")
    assert step.key("a") != first, "a file that changed"


def read(tmp_path: Path, text: str, *, teacher: str | None = None) -> list[RecipeStep]:
    (tmp_path / "r.toml").write_text(text)
    return steps_of(str(tmp_path / "r.toml"), {"data": "d.npz", "tolerance": 0.1}, teacher=teacher)


def test_a_step_is_given_what_all_are_given_if_it_knows_it(tmp_path: Path) -> None:
    prune, shrink, train = read(
        tmp_path,
        '[[step]]\nrun = "prune"\nratio = 0.3\n[[step]]\nrun = "shrink"\ntolerance = 0.5\n[[step]]\nrun = "train"\n',
        teacher="t.onnx",
    )
    assert (prune.number, prune.verb, prune.options["ratio"], prune.options["data"]) == (1, "prune", 0.3, "d.npz")
    assert "tolerance" not in prune.options and shrink.options["tolerance"] == 0.5, "its own comes first"
    assert train.options["teacher"] == "t.onnx" and "teacher" not in prune.options


def test_labels_need_no_teacher(tmp_path: Path) -> None:
    (train,) = read(tmp_path, '[[step]]\nrun = "train"\nlabels = "y"\n', teacher="t.onnx")
    assert "teacher" not in train.options


def test_where_results_go_is_not_for_a_step_to_say(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be set by a step @ step 1") as caught:
        read(tmp_path, '[[step]]\nrun = "prune"\noutput = "x.onnx"\n')
    assert "onnxprune run" in (caught.value.hint or "")


def test_what_a_step_says_bears_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    inner = StepConsole(Console(), "step 2, prune")
    inner.put_json({"a": 1})
    inner.say("all is well")
    assert inner.report == {"a": 1} and "step 2, prune: all is well" in capsys.readouterr().err
