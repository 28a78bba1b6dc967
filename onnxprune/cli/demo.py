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

EXAMPLES = ("digits.onnx", "digits_calibration.npz")
COMMANDS = (
    "onnxprune inspect digits.onnx",
    "onnxprune prune digits.onnx -o small.onnx --ratio 0.5 --data digits_calibration.npz",
    "onnxprune bench digits.onnx small.onnx",
)


@click.command(cls=Titled)
@click.argument("folder", type=FOLDER, default=".")
@shared.force
@shared.conversation
def demo(console: Console, folder: str, force: bool) -> None:
    """Write an example into FOLDER, the working folder by default.

    The example is a small trained model of handwritten digits, and inputs for it, without labels.
    """
    targets = [str(Path(folder) / name) for name in EXAMPLES]
    for target in targets:
        paths.check_target(target, inputs=[], force=force)
    with paths.staged({target: example(name) for name, target in zip(EXAMPLES, targets, strict=True)}):
        pass
    console.put([*targets, "", "to try:", *(f"  {command}" for command in COMMANDS)])


def example(name: str) -> bytes:
    """The content of an example: in the installed package, or beside the package in a checkout."""
    inside = files("onnxprune") / "examples" / name
    return inside.read_bytes() if inside.is_file() else (Path(__file__).parents[2] / "models" / name).read_bytes()
