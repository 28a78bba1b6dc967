"""`onnxprune demo`: write an example to try the commands on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.group import Titled
from onnxprune.cli.output import Console
from onnxprune.cli.types import FOLDER

# Name -> its files.
EXAMPLES = {
    "digits": ("digits.onnx", "digits_calibration.npz", "digits_test.npz"),
    "yolo": ("yolo.onnx",),
    "decoder": ("decoder.onnx",),
    "channels_last": ("channels_last.onnx",),
}
COMMANDS = (
    "onnxprune inspect {model}",
    "onnxprune prune {model} -o small.onnx --ratio 0.5",
    "onnxprune bench {model} small.onnx",
)
# Further commands for examples that have data.
WITH_DATA = {
    "digits": (
        "onnxprune prune digits.onnx -o repaired.onnx --ratio 0.5 --data digits_calibration.npz",
        "onnxprune evaluate digits.onnx small.onnx repaired.onnx --data digits_test.npz --labels label",
    )
}


def commands(name: str) -> list[str]:
    """The commands to try an example with, in their order."""
    return [*(command.format(model=EXAMPLES[name][0]) for command in COMMANDS), *WITH_DATA.get(name, ())]


@click.command(cls=Titled)
@click.argument("folder", type=FOLDER, default=".")
@click.option(
    "--example",
    "name",
    type=click.Choice([*EXAMPLES]),
    default=next(iter(EXAMPLES)),
    show_default=True,
    help="A small trained model with data for it; or a detector, a decoder with caches, a network with channels last,"
    " whose weights are random.",
)
@shared.force
@shared.conversation
def demo(console: Console, folder: str, name: str, force: bool) -> None:
    """Write an example into FOLDER, the working folder by default.

    The example is a small trained model of handwritten digits, 256 inputs for it without labels, and 360 with labels.
    """
    targets = [str(Path(folder) / file) for file in EXAMPLES[name]]
    for target in targets:
        paths.check_target(target, inputs=[], force=force)
    with paths.staged({target: example(file) for file, target in zip(EXAMPLES[name], targets, strict=True)}):
        pass
    if not console.quiet:
        console.put([*targets, "", "to try:", *(f"  {command}" for command in commands(name))])


def example(file: str) -> bytes:
    """The content of a file of an example: in the installed package, or beside the package in a checkout."""
    inside = files("onnxprune") / "examples" / file
    return inside.read_bytes() if inside.is_file() else (Path(__file__).parents[2] / "models" / file).read_bytes()
