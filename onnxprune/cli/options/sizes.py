"""Options that say how large the inputs of a model are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from onnxprune.cli import paths
from onnxprune.cli.options.group import INPUTS, group, titled
from onnxprune.cli.types import LARGEST, Pair, Shape

if TYPE_CHECKING:
    from onnxprune.model import Model

GivenShape = tuple[int | None, ...]


@dataclass(frozen=True)
class Sizes:
    """How large inputs are, as it was given.

    Attributes:
        numbers: symbolic axis -> the number that is assumed; the axis stays open.
        shapes: input -> its shape from now on; where that is None, an axis stays as it is.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, GivenShape] = field(default_factory=dict)

    def load(self, source: str) -> Model:
        """Load a model whose inputs have these shapes.

        Raises:
            UsageError: it has no such input or axis, or an input of another shape.
        """
        model = paths.load(source, self.shapes)
        if self.numbers:
            from onnxprune.model.shapes.symbols import check_sizes

            check_sizes(model.proto.graph, self.numbers, given_as="--sizes")
        return model


def _sizes(sizes: tuple[tuple[str, int], ...] = (), shapes: tuple[tuple[str, GivenShape], ...] = ()) -> Sizes:
    return Sizes(dict(sizes), dict(shapes))


_NUMBERS = click.option(
    "--sizes",
    metavar="NAME=N",
    type=Pair(click.IntRange(1, LARGEST)),
    multiple=True,
    help="Number to assume for a symbolic axis (batch=4) while shapes are worked out, models run and times are "
    "measured; the axis stays symbolic. May be repeated.",
)
_SHAPES = click.option(
    "--shape",
    "shapes",
    metavar="INPUT=SHAPE",
    type=Pair(Shape()),
    multiple=True,
    help="Shape of an input that the file leaves open, in part or whole: input=1x3x224x224, ? for an axis that stays "
    "as it is. The result has it too. May be repeated.",
)

# How large inputs are; the command gets `sizes`.
sizes = group("sizes", _sizes, titled(INPUTS, _NUMBERS, _SHAPES))
# The same for a command in which a plan says which numbers are assumed.
shapes = group("sizes", _sizes, titled(INPUTS, _SHAPES))
