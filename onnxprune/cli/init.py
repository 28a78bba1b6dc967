"""`onnxprune init`: write a recipe, a TOML file of options, for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.group import Titled
from onnxprune.cli.options.selection import Policy, policy
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.options.sizes import sizes as given_sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from onnxprune.model import Model
    from onnxprune.tracing import Groups


@click.command(cls=Titled)
@click.argument("model", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    default="onnxprune.toml",
    show_default=True,
    help="Where the recipe goes; - is standard output.",
)
@policy
@given_sizes
@shared.force
@shared.conversation
def init(console: Console, model: str, output: str, policy: Policy, sizes: Sizes, force: bool) -> None:
    """Write a recipe for MODEL: every option of `prune`, with its default and what it means.

    Comments list the inputs, the groups and the barriers of the model. `onnxprune --config FILE prune` reads it.
    """
    paths.check_target(output, inputs=[model], force=force, binary=False)
    console.progress("tracing")
    from onnxprune.cli import recipe
    from onnxprune.cli.prune import prune
    from onnxprune.cost import counts
    from onnxprune.report import text

    source = sizes.load(model)
    groups = policy.trace(source, sizes.numbers)
    about = [
        f"Recipe for {paths.shown(model)}, to be read by",
        f"    onnxprune --config {output if output != paths.PIPE else 'FILE'} prune {model} -o small.onnx",
        "What is commented out has the value that it shows; where an example stands, it has none.",
        "",
        *text.inspection(paths.shown(model), groups, counts.of(source, sizes.numbers), members=False),
        "",
        "inputs, for --data (names and shapes of arrays)",
        *map(_described, _inputs(source)),
    ]
    made = recipe.text(prune, about, _names(source, groups))
    if output == paths.PIPE:
        console.put(made.rstrip("\n"))
        return
    paths.write_file(made, output)
    if not console.quiet:
        console.put(paths.arrow(model, output))


def _inputs(source: Model) -> list[ValueInfoProto]:
    weights = {t.name for t in source.proto.graph.initializer}
    return [value for value in source.proto.graph.input if value.name not in weights]


def _described(value: ValueInfoProto) -> str:
    """An input: its name, type and sizes."""
    from onnxprune.model.shapes.symbols import dims_of
    from onnxprune.model.tensors import dtype_of

    kind = value.type.tensor_type
    sizes = f"[{', '.join(map(str, dims_of(value)))}]" if kind.HasField("shape") else "of any shape"
    return f"{value.name}: {dtype_of(kind.elem_type) if kind.elem_type else 'no tensor'} {sizes}"


def _names(source: Model, groups: Groups) -> dict[str, str]:
    """What stands for a value in the help of options, and one for this model."""
    from onnxprune.model.shapes.symbols import dims_of, symbolic_dims

    found = {}
    if groups.groups:
        found["GLOB"] = groups.groups[0].name
    if symbols := list(symbolic_dims(source.proto.graph)):
        found["NAME=N"] = f"{symbols[0]}=1"
    if inputs := _inputs(source):
        sizes = (str(d) if isinstance(d, int) else "1" for d in dims_of(inputs[0]))
        found["INPUT=SHAPE"] = f"{inputs[0].name}={'x'.join(sizes)}"
    return found
