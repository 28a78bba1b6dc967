"""The account of a recipe of several steps."""

from __future__ import annotations

from onnxprune.pipelines.recipe_result import RecipeResult, StepCost, StepReport
from onnxprune.report import recipe as report
from tests.report.runs import plain

STEPS = [
    StepReport("", StepCost(1000, 1000, 5000, 4096)),
    StepReport("prune", StepCost(600, 600, 2500, 2048), 1.26, {"proof": {"ok": True}}),
    StepReport("sparsify", StepCost(600, 300, 2500, 1024), 0.5, {"proof": {"ok": False}}),
]


def test_a_row_per_step_and_the_change() -> None:
    lines = report.recipe_lines(RecipeResult(STEPS, 1, None, None))
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["original", "1.0"],
        ["1", "prune"],
        ["2", "sparsify"],
        ["change", "-40.0"],
    ]
    assert lines[2].endswith("1.3") and "-70.0 %" in lines[4] and "-75.0 %" in lines[4]
    assert any("step 1, prune: proven" in line for line in lines)
    assert any("step 2, sparsify: FAILED" in line for line in lines)
    assert any("1 step had been finished before" in line for line in lines)


def test_data_are_the_same_figures() -> None:
    found = plain(report.recipe_data(RecipeResult(STEPS, 0, None, None)))
    assert [s["verb"] for s in found["steps"]] == ["original", "prune", "sparsify"]
    assert found["steps"][2]["nonzeros"] == 300 and "report" not in found["steps"][0] and found["outputs"] is None
