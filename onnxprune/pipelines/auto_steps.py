"""Steps of a recipe carried out from Python: each verb by its own pipeline, with its own proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxprune.allocation import Options
from onnxprune.allocation.timed import needs_tables
from onnxprune.cost import counts
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, file_size, sums_apart
from onnxprune.model.blocks import find_blocks
from onnxprune.model.data_flow import DataFlow
from onnxprune.pipelines import prune
from onnxprune.pipelines.auto_recipes import STAND_IN, ModelFacts, Recipe, VerbStep
from onnxprune.pipelines.compress_source import compress
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.drop_source import drop
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.run_asked import run_asked
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify_source import sparsify
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.pipelines.widths_and_bits import quantize_within
from onnxprune.progress import Progress, prefixed
from onnxprune.recovery import TrainingOptions
from onnxprune.rewriting import rotatable_groups
from onnxprune.runtime.bench import Place
from onnxprune.tracing import trace

# The kind of groups that lie within heads.
HEAD_DIM = "head dim"


@dataclass(frozen=True)
class StepContext:
    """What all steps of a recipe have in common.

    Attributes:
        original: the model that training learns from, and that budgets are shares of.
        inputs: what steps choose, fit and train on.
        place: where times are measured.
        tell: is told about every stage; it may end the work.
    """

    original: Model
    inputs: RunInputs
    place: Place
    tell: Progress


@dataclass(frozen=True)
class Made:
    """What a recipe gave.

    Attributes:
        model: the model.
        steps: what was carried out, with all options.
    """

    model: Model
    steps: tuple[VerbStep, ...]


def carry_out_recipe(model: Model, recipe: Recipe, share: float | None, cost: str, context: StepContext) -> Made:
    """Carry out a recipe.

    Args:
        model: what it begins with.
        recipe: the steps.
        share: what the step that is turned is to leave of the original's cost; None where none is turned.
        cost: the kind of cost.
        context: what the steps have in common.

    Returns:
        The model, and the steps with all their options.

    Raises:
        OnnxPruneError: a step fails, or does nothing for this model.
    """
    steps = []
    for number, step in enumerate(recipe.steps):
        if number == recipe.dial and share is not None:
            kind = recipe.dial_kind(cost)
            left = share * amounts_of(context.original, context)[kind] / amounts_of(model, context)[kind]
            if left >= 1:  # the steps before have done it
                continue
            step = recipe.with_options(number, {kind: f"{100 * left:.4f}%"}).steps[number]
        told = _told(step.verb, context)
        model = VERBS[step.verb](model, dict(step.options), told)
        steps.append(step)
    return Made(model, tuple(steps))


def amounts_of(model: Model, context: StepContext) -> dict[str, float]:
    """Count what a model costs, by kind; multiply-accumulates stand for the time.

    Args:
        model: the model.
        context: with numbers for symbolic dims.

    Returns:
        Kind of cost -> amount.
    """
    cost = counts.of(model, context.inputs.sizes)
    return {"params": cost.params, "macs": cost.macs, "size": file_size(model), "latency": getattr(cost, STAND_IN)}


def facts_of(model: Model, sizes: Mapping[str, int], *, data: bool) -> ModelFacts:
    """Find out which recipes may do something for a model.

    Args:
        model: the model.
        sizes: numbers for symbolic dims.
        data: whether there are inputs.

    Returns:
        The facts.
    """
    groups = trace(model, sizes=sizes)
    inside = trace(model, sizes=sizes, head_dims=True)
    whole = sums_apart(model)
    apart = groups if whole is model else trace(whole, sizes=sizes)
    return ModelFacts(
        data=data,
        linear=bool(rotatable_groups(groups)),
        heads=any(group.kind == HEAD_DIM for group in inside.groups) and bool(rotatable_groups(inside)),
        blocks=len(DropOptions().eligible(find_blocks(DataFlow(apart.tracing.model, apart.static)))),
        products=any(node.op_type == "MatMul" for node in model.proto.graph.node),
    )


def _told(verb: str, context: StepContext) -> StepContext:
    """The same for one step, which is told by its name."""
    return replace(context, tell=lambda stage: context.tell(prefixed(verb, stage)))


def _given(context: StepContext) -> dict[str, Any]:
    """What the functions of the verbs are given."""
    inputs = context.inputs
    return {"data": inputs.data, "samples": inputs.samples, "sizes": inputs.sizes, "progress": context.tell}


def _prune(model: Model, options: dict[str, Any], context: StepContext) -> Model:
    chosen = Options(**options)
    outcome = run_asked(model, chosen, place=context.place if needs_tables(chosen) else None, **_given(context))
    prune.check_proven(outcome.groups, outcome.verdict)
    if chosen.rotate and not outcome.plan.rotations:
        raise GoalMissed("no group can be rotated")
    if chosen.drop and outcome.dropped is None:
        raise GoalMissed("no block does less damage than units")
    return outcome.model


def _quantize(model: Model, options: dict[str, Any], context: StepContext) -> Model:
    return quantize_within(model, QuantizeOptions(**options), context.inputs, progress=context.tell).model


def _train(model: Model, options: dict[str, Any], context: StepContext) -> Model:
    inputs = context.inputs
    data = TrainingData(inputs.data, inputs.samples, teacher=context.original, sizes=inputs.sizes)
    return learn(model, data, TrainingOptions(**options), progress=context.tell)[0]


# Verb -> what carries it out: the model, its options, and what all steps have in common.
VERBS: Mapping[str, Callable[[Model, dict[str, Any], StepContext], Model]] = {
    "prune": _prune,
    "drop": lambda model, options, context: drop(model, **options, **_given(context)).model,
    "compress": lambda model, options, context: compress(model, **options, **_given(context)).model,
    "sparsify": lambda model, options, context: sparsify(model, **options, **_given(context)).model,
    "quantize": _quantize,
    "train": _train,
}
