"""What the steps of a recipe made, as text and as data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data as plain
from onnxprune.report import numbers, text
from onnxprune.report.sparsify import agreement_data, agreement_text, speed_data, speed_text

if TYPE_CHECKING:
    from onnxprune.pipelines.recipe_result import RecipeResult, StepReport

HEADER = ("step", "params", "non-zeros", "MACs", "file", "seconds")


def recipe_lines(result: RecipeResult) -> list[str]:
    """The account of all steps: a row for each, then what has become of the outputs and of the time."""
    first, last = result.steps[0], result.steps[-1]
    change = [
        numbers.change(getattr(first.cost, name), getattr(last.cost, name))
        for name in ("params", "nonzeros", "macs", "bytes")
    ]
    rows = [_row(number, step) for number, step in enumerate(result.steps)]
    lines = text.table(HEADER, [*rows, ("change", *change, "")], HEADER[1:])
    lines += ["", *_steps(result)]
    if result.resumed:
        lines.append(text.entry("resumed", f"{numbers.plural(result.resumed, 'step')} had been finished before"))
    if result.judged is not None:
        lines.append(text.entry("outputs", f"{agreement_text(result.judged)} on held-out samples"))
    if result.speed is not None:
        lines.append(text.entry("speed", speed_text(result.speed)))
    return lines


def _row(number: int, step: StepReport) -> tuple[str, ...]:
    cost = step.cost
    counted = (numbers.count(cost.params), numbers.count(cost.nonzeros), numbers.count(cost.macs))
    seconds = f"{step.seconds:.1f}" if step.verb else ""
    return (f"{number} {step.verb}" if step.verb else "original", *counted, numbers.bytes_text(cost.bytes), seconds)


def _steps(result: RecipeResult) -> list[str]:
    """What every step says of its proof."""
    lines = []
    for number, step in enumerate(result.steps):
        proof = (step.report or {}).get("proof")
        if isinstance(proof, dict):
            lines.append(
                text.entry("proof", f"step {number}, {step.verb}: {'proven' if proof.get('ok') else 'FAILED'}")
            )
    return lines


def recipe_data(result: RecipeResult) -> dict[str, Any]:
    """The account of all steps as plain data: what `--json` prints."""
    return {
        "steps": [
            {"verb": step.verb or "original", **asdict(step.cost), "seconds": round(step.seconds, 3)}
            | ({"report": step.report} if step.report is not None else {})
            for step in result.steps
        ],
        "resumed": result.resumed,
        "outputs": agreement_data(result.judged),
        "damage": plain.ruin(result.judged),
        "speed": None if result.speed is None else speed_data(result.speed),
    }
