"""The root command: a table of commands that are imported when they are called."""

from __future__ import annotations

from importlib import import_module

import click

from onnxprune import __version__
from onnxprune.cli.types import FILE

# Name -> what it does; the command is found in the module of its name, under its name. The help text is here,
# so that `onnxprune --help` imports no command.
COMMANDS = {
    "demo": "Write an example to try the commands on.",
    "auto": "Choose among all of these what makes the best model, within a given time.",
    "inspect": "Show the groups that can shrink, and what is locked and why.",
    "init": "Write a recipe: all options for a model, as a file.",
    "prune": "Make a model smaller, and prove the result.",
    "shrink": "Remove what is dead, without loss.",
    "compress": "Take out what the function does not need: the outputs stay.",
    "sparsify": "Set single weights to zero, and prove the result.",
    "drop": "Take whole layers and blocks out, and prove the result.",
    "quantize": "Store weights, and compute, in whole numbers of a byte or of a few bits.",
    "run": "Carry out a recipe of several steps.",
    "plan": "Write what would be removed as JSON, to look at or edit.",
    "apply": "Carry out a plan.",
    "verify": "Prove that a pruned model equals the masked original.",
    "train": "Train a model by gradient steps, towards another model's outputs or labels.",
    "evaluate": "Judge models on data: by labels, and by how far they agree.",
    "sensitivity": "Measure what it costs the outputs to cut each group.",
    "diff": "Compare the layers and costs of two models.",
    "bench": "Measure time, memory and size of models, and compare them.",
    "criteria": "List what can make a unit important.",
    "ops": "List the operators that channels are followed through.",
}

# Commands that make one model of another, which may be the steps of a recipe.
STEPS = ("prune", "drop", "shrink", "compress", "sparsify", "train", "quantize")


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"onnxprune.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        command.help = command.help or COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments start with."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, 1)
            meant = f", did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"no such command: '{args[0]}'{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"onnxprune {__version__}")
    ctx.exit()


_HELP = """Make trained ONNX models smaller and faster, with a proof.

\b
onnxprune inspect model.onnx
onnxprune prune model.onnx -o small.onnx --ratio 0.5
onnxprune prune model.onnx -o small.onnx --macs 50% --data inputs.npz
onnxprune train small.onnx -o trained.onnx --teacher model.onnx --data inputs.npz
onnxprune bench model.onnx small.onnx
"""


@click.group(
    cls=LazyGroup,
    help=_HELP,
    context_settings={"auto_envvar_prefix": "ONNXPRUNE", "help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.option("--config", type=FILE, help="TOML file with options of the commands (see the documentation).")
@click.option(
    "--plugin", metavar="MODULE", multiple=True, help="Module with rules or criteria of yours; may be repeated."
)
@click.option("--max-memory", metavar="SIZE", help="Most memory to take, 4GB: what needs more fails with an error.")
@click.pass_context
def app(ctx: click.Context, config: str | None, plugin: tuple[str, ...], max_memory: str | None) -> None:
    """Run a command; what is common to all of them is settled here."""
    if max_memory is not None:
        from onnxprune.allocation.amount import bytes_of
        from onnxprune.system import limit_to

        limit_to(bytes_of("--max-memory", max_memory))
    if plugin:
        from onnxprune.plugins import load_modules

        load_modules(plugin)
    if config is not None:
        from onnxprune.cli.config import set_defaults

        set_defaults(ctx, config)
