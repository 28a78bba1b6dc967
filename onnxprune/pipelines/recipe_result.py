"""What the steps of a recipe made: the costs after each, and how the last model agrees with the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxprune.calibration import is_random
from onnxprune.cost import count_nonzeros, counts
from onnxprune.model import Model, file_size
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.recovery import held_out
from onnxprune.rewriting import Removal, agreement
from onnxprune.runtime import Agreement
from onnxprune.sparsity import Speed
from onnxprune.tracing import trace


@dataclass(frozen=True)
class StepCost:
    """What a model costs.

    Attributes:
        params: number of parameters.
        nonzeros: those of them that are not zero.
        macs: multiplications with additions of a run, for one sample.
        bytes: of its file, external data included.
    """

    params: int
    nonzeros: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class StepReport:
    """What one step made.

    Attributes:
        verb: name of the command; empty for the model that the recipe began with.
        cost: that of its model.
        seconds: wall time of the step.
        report: what the command tells with `--json`.
    """

    verb: str
    cost: StepCost
    seconds: float = 0.0
    report: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data, as `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any) -> StepReport | None:
        """What was kept of a step; None where it is something else."""
        try:
            cost = StepCost(**{name: int(value) for name, value in found["cost"].items()})
            return cls(str(found["verb"]), cost, float(found["seconds"]), dict(found["report"]))
        except (TypeError, ValueError, KeyError, AttributeError):
            return None


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe made.

    Attributes:
        steps: the model that it began with, and what every step made of it.
        resumed: how many steps were finished before, and not repeated.
        judged: how the outputs agree with those that the first model gives on held-out samples; None without data, and
            where inputs or outputs have changed.
        speed: the time of a run before and after; None if it was not measured.
    """

    steps: Sequence[StepReport]
    resumed: int = 0
    judged: Agreement | None = None
    speed: Speed | None = None


def cost_of(model: Model, sizes: Mapping[str, int]) -> StepCost:
    """Count what a model costs.

    Args:
        model: the model.
        sizes: numbers for symbolic dims.

    Returns:
        Its costs.
    """
    cost = counts.of(model, sizes)
    return StepCost(cost.params, count_nonzeros(trace(model, sizes=sizes), model), cost.macs, file_size(model))


def agreement_of(original: Model, final: Model, inputs: RunInputs) -> Agreement | None:
    """Compare two models on the samples that judge, as every step does.

    Args:
        original: the first model.
        final: the last one.
        inputs: calibration inputs.

    Returns:
        Their agreement; None without data, and where the models have other inputs or outputs.
    """
    if inputs.data is None or is_random(inputs.data) or _face(original) != _face(final):
        return None
    groups = trace(original, sizes=inputs.sizes)
    _, held = held_out(inputs.read(original))
    return agreement(Removal(groups, np.zeros(groups.classes.count, bool)), final, held)


def _face(model: Model) -> list[tuple[str, bytes]]:
    """Names and types of the inputs and outputs."""
    graph = model.proto.graph
    inputs = [value for value in graph.input if value.name not in model.initializers]
    return [(value.name, value.type.SerializeToString(deterministic=True)) for value in (*inputs, *graph.output)]
