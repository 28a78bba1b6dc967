"""The steps of a recipe: commands, one after the other, each on the model that the last one made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnxprune import __version__
from onnxprune.cli.app import STEPS, app
from onnxprune.cli.config import CONFIG, read_steps
from onnxprune.cli.kept_training import SUFFIX
from onnxprune.cli.options.group import CHECK_ONLY
from onnxprune.cli.output import Console
from onnxprune.errors import OnnxPruneError, UsageError
from onnxprune.progress import prefixed

# Options that `run` sets by itself in every step, and that a recipe must not: the model and the report go on.
OWN = ("output", "report", "picture", "as_json", "force", "dry_run", "resume", "accept_damage")
# Options that name a file that is read.
READ = ("data", "preprocess", "tokenizer", "teacher")


@dataclass(frozen=True)
class RecipeStep:
    """One command of a recipe.

    Attributes:
        number: from 1.
        verb: name of the command.
        options: what the recipe gives it, and what all steps are given, as click's `default_map` has them.
    """

    number: int
    verb: str
    options: Mapping[str, Any]

    @property
    def file(self) -> str:
        """Name of the file that its model is written to."""
        return f"{self.number}-{self.verb}.onnx"

    def key(self, before: str) -> str:
        """A short name for all that its result depends on.

        Args:
            before: that of the model it begins with.
        """
        from onnxprune.runtime import key_of

        return key_of(
            before=before,
            verb=self.verb,
            options={name: repr(value) for name, value in self.options.items()},
            files={name: _state(self.options[name]) for name in READ if name in self.options},
            version=__version__,
        )


def steps_of(recipe: str, common: Mapping[str, Any], *, teacher: str | None) -> list[RecipeStep]:
    """Read the steps of a recipe.

    Args:
        recipe: a TOML file.
        common: options that every step is given that knows them, and does not set them.
        teacher: what a training step without labels learns from.

    Raises:
        UsageError: the recipe is wrong.
    """
    known = {name: command_of(name) for name in STEPS}
    steps = []
    for number, (verb, own) in enumerate(read_steps(recipe, known), 1):
        for name in OWN:
            if name in own:
                raise UsageError(
                    f"option {name.replace('_', '-')!r} cannot be set by a step @ step {number} in {recipe}",
                    hint="give it to `onnxprune run`",
                )
        takes = {parameter.name for parameter in known[verb].params}
        options = {name: value for name, value in common.items() if name in takes} | own
        if "teacher" in takes and not {"teacher", "labels"} & options.keys() and teacher is not None:
            options["teacher"] = teacher
        steps.append(RecipeStep(number, verb, options))
    return steps


def command_of(name: str) -> click.Command:
    """The command of a step."""
    command = app.get_command(click.Context(app), name)
    assert command is not None
    return command


class StepConsole(Console):
    """What a step says, passed on with its name; its report is kept.

    Attributes:
        report: what the step would print with `--json`.
    """

    def __init__(self, outer: Console, name: str) -> None:
        """Prepare.

        Args:
            outer: where it is said.
            name: stands in front of it.
        """
        super().__init__()
        self.outer, self._name = outer, name
        self.report: dict[str, Any] = {}

    def put(self, lines: str | Iterable[str]) -> None:
        """Say what a step would print, to people who want to know all."""
        self.outer.detail(lines)

    def put_json(self, document: Any) -> None:
        """Keep the report."""
        self.report = document

    def progress(self, stage: str) -> None:
        """Show what is being done, and in which step."""
        self.outer.progress(prefixed(self._name, stage))

    def finish(self) -> None:
        """Remove the progress line."""
        self.outer.finish()

    def _tell(self, text: str) -> None:
        self.outer.say(f"{self._name}: {text}")


def carry_out(step: RecipeStep, console: Console, *, source: str, target: Path, recipe: str) -> dict[str, Any]:
    """Run the command of a step.

    Damage is accepted: a later step may repair it, and the end is judged.

    Args:
        step: the step.
        console: where it is said what the step does.
        source: the file with the model that it begins with.
        target: the file that its model is written to.
        recipe: for messages.

    Returns:
        Its report, as `--json` prints it.

    Raises:
        OnnxPruneError: the step failed; the message says which.
    """
    own = StepConsole(console, f"step {step.number}, {step.verb}")
    settled = {
        "as_json": True,
        "force": True,
        "accept_damage": True,
        "resume": Path(f"{target}{SUFFIX}").exists(),
    }
    _invoke(step, own, [source, "-o", str(target)], recipe=recipe, settled=settled)
    return own.report


def check_step(step: RecipeStep, console: Console, *, recipe: str) -> None:
    """Refuse a step whose options are wrong, before any step is carried out.

    Args:
        step: the step.
        console: whose the step would be.
        recipe: for messages.

    Raises:
        OnnxPruneError: an option has a value that it does not take, or no effect; the message says in which step.
    """
    own = StepConsole(console, f"step {step.number}, {step.verb}")
    _invoke(step, own, ["model.onnx", "-o", step.file], recipe=recipe, settled={}, check_only=True)


def _invoke(
    step: RecipeStep,
    console: StepConsole,
    arguments: list[str],
    *,
    recipe: str,
    settled: Mapping[str, Any],
    check_only: bool = False,
) -> None:
    """Call the command of a step, or only let it read its options."""
    command = command_of(step.verb)
    takes = {parameter.name for parameter in command.params}
    parent = click.Context(app, info_name="onnxprune", obj=console)
    parent.meta.update({CONFIG: recipe, CHECK_ONLY: check_only})
    # What is to be said about options is said when the step is carried out.
    said = {"quiet": check_only or console.outer.quiet, "verbose": console.outer.verbosity, **settled}
    defaults = {**step.options, **{name: value for name, value in said.items() if name in takes}}
    try:
        with command.make_context(step.verb, list(arguments), parent=parent, default_map=defaults) as context:
            command.invoke(context)
    except OnnxPruneError as error:
        raise type(error)(f"step {step.number}, {step.verb}: {error.message}", hint=error.hint) from error
    except click.ClickException as error:
        raise UsageError(f"step {step.number}, {step.verb}: {error.format_message()}") from error


def _state(text: Any) -> list[int] | None:
    """What tells whether a file has changed, its size and when it was written last; None where a text names none."""
    try:
        found = Path(text).stat()
    except (OSError, ValueError, TypeError):
        return None
    return [found.st_size, found.st_mtime_ns]
