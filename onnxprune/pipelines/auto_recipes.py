"""The recipes that `auto` chooses among: steps of the other verbs, of which one may have a budget that is turned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnxprune.names import BLOCK_BUDGETS, BUDGETS, RANK_BUDGETS

# What stands in for a kind of cost that a verb has no budget for.
STAND_IN = "macs"
# Verbs by the harm that they do in general to a model of the same budget.
HARM = ("quantize", "train", "prune", "compress", "drop", "sparsify")
# The budgets of the verbs that have some; of `sparsify`, only what sparse storage saves is a cost here, and a budget on
# time would let `compress` time its products again for every recipe.
TAKES: Mapping[str, Sequence[str]] = {
    "prune": tuple(BUDGETS),
    "drop": BLOCK_BUDGETS,
    "compress": tuple(kind for kind in RANK_BUDGETS if kind != "latency"),
    "sparsify": ("size",),
    "quantize": ("size", "macs"),
}


# The recipe that does nothing beyond what is free.
AS_IT_IS = "lossless"


@dataclass(frozen=True)
class VerbStep:
    """One command of a recipe.

    Attributes:
        verb: name of the command.
        options: its options, spelled as in Python.
    """

    verb: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Commands, one after the other, each on the model that the last one made.

    Attributes:
        name: what people call it.
        steps: the commands.
        dial: the step that is given a budget; None where nothing is turned.
    """

    name: str
    steps: tuple[VerbStep, ...]
    dial: int | None = None

    def dial_kind(self, cost: str) -> str:
        """The budget that is turned to lower a kind of cost."""
        assert self.dial is not None
        return cost if cost in TAKES[self.steps[self.dial].verb] else STAND_IN

    def with_options(self, place: int, options: Mapping[str, Any]) -> Recipe:
        """The recipe with further options of one step."""
        step = self.steps[place]
        steps = [*self.steps]
        steps[place] = replace(step, options={**step.options, **options})
        return replace(self, steps=tuple(steps))

    def then(self, other: Recipe) -> Recipe:
        """The recipe with the steps of another behind its own."""
        return replace(self, name=f"{self.name} + {other.name}", steps=(*self.steps, *other.steps))

    def trained(self, steps: int) -> Recipe:
        """The recipe with gradient steps behind the step that is turned: what follows may round the weights."""
        if not steps or self.dial is None:
            return self
        place = self.dial + 1
        train = VerbStep("train", {"steps": steps})
        return replace(self, name=f"{self.name} + train", steps=(*self.steps[:place], train, *self.steps[place:]))


@dataclass(frozen=True)
class ModelFacts:
    """What decides which recipes may do something for a model.

    Attributes:
        data: there are inputs.
        linear: a group of channels is linear, and may be rotated.
        heads: there are attention heads, whose dimensions are linear.
        blocks: number of blocks that may be dropped.
        products: weights are multiplied as matrices, so they may be stored in blocks.
    """

    data: bool = True
    linear: bool = False
    heads: bool = False
    blocks: int = 0
    products: bool = False


def fixed_recipes(cost: str, facts: ModelFacts) -> list[Recipe]:
    """List the recipes with nothing to turn: what costs nothing, and other numbers.

    Args:
        cost: the kind of cost that is to be small.
        facts: of the model.

    Returns:
        The recipes, what tells most in front; quantising changes neither parameters nor multiply-accumulates.
    """
    found = [Recipe(AS_IT_IS, ())]
    if cost not in ("size", "latency"):
        return found
    whole = [Recipe(kind, (VerbStep("quantize", {"weights": kind}),)) for kind in ("int8", "uint8")]
    in_blocks = [Recipe(f"{n} bits", (VerbStep("quantize", {"form": "blocks", "bits": n}),)) for n in (8, 4)]
    if not facts.data:  # activations are quantised by their own range: nothing saturates that would not anyway
        whole = whole[:1]
    if cost != "size" or not facts.products:
        in_blocks = []
    return [*found, *whole[:1], *in_blocks[:1], *whole[1:], *in_blocks[1:]]


def turned_recipes(cost: str, facts: ModelFacts) -> list[Recipe]:
    """List the recipes that meet a budget, the least harmful first where nothing tells.

    Args:
        cost: the kind of cost that is to be small.
        facts: of the model.

    Returns:
        The recipes.
    """
    prune = VerbStep("prune")
    found = [Recipe("prune", (prune,), dial=0)]
    if facts.data and facts.linear:
        found.append(Recipe("rotate", (VerbStep("prune", {"rotate": True}),), dial=0))
    if facts.data and facts.heads:
        found.append(Recipe("rotate heads", (VerbStep("prune", {"head_dims": True, "rotate": True}),), dial=0))
    if facts.blocks:
        found.append(Recipe("prune with blocks", (VerbStep("prune", {"drop": True}),), dial=0))
        found.append(Recipe("drop + prune", (VerbStep("drop", {"count": 1}), prune), dial=1))
    slower = {} if cost == "latency" else {"allow_slower": True}
    found.append(Recipe("products", (VerbStep("compress", slower),), dial=0))
    if cost == "size":
        found.append(Recipe("zeros", (VerbStep("sparsify", {"storage": "sparse"}),), dial=0))
    if cost == "size" and facts.data:
        found.append(Recipe("widths and bits", (VerbStep("quantize", {"form": "qdq"}),), dial=0))
    return found


def harm_of(steps: Sequence[VerbStep]) -> int:
    """Tell how much steps are expected to harm a model, where nothing measures that.

    Args:
        steps: with all their options.

    Returns:
        0 for what is lossless, then in the order of `HARM`; that of the worst step.
    """
    return max((1 + HARM.index(step.verb) for step in steps if step != VerbStep("compress")), default=0)


def is_rounded(recipe: Recipe) -> bool:
    """Tell whether a recipe ends in whole numbers, which no other verb takes further."""
    return any(step.verb == "quantize" for step in recipe.steps)


def is_roundable(recipe: Recipe) -> bool:
    """Tell whether whole numbers may end a recipe: there are none yet, and no zeros that only sparse storage saves."""
    return recipe.steps[-1].verb not in ("quantize", "sparsify")


def recipe_text(steps: Sequence[VerbStep]) -> str:
    """Write steps as the file that `onnxprune run` carries out.

    Args:
        steps: with all their options.

    Returns:
        TOML.
    """
    blocks = []
    for step in steps:
        named = {"run": step.verb, **{name.replace("_", "-"): value for name, value in step.options.items()}}
        # Texts, numbers, true and false are written in TOML as in JSON.
        blocks.append("\n".join(["[[step]]", *(f"{name} = {json.dumps(value)}" for name, value in named.items())]))
    return "\n\n".join(blocks) + "\n"
