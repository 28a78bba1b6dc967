"""Options that need another option: alone they would have no effect, so they are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from onnxprune import names
from onnxprune.cli.output import Console
from onnxprune.errors import UsageError

Command = Callable[..., Any]


@dataclass(frozen=True)
class Requirement:
    """What options need to have an effect; it does not concern commands that have none of what is needed.

    Attributes:
        options: as they are typed; with a value (or several, parted by bars) only where they have it.
        one_of: the options of which one is needed, written the same way.
        why: why they have no effect without.
        commands: whom it concerns; all where empty.
    """

    options: tuple[str, ...]
    one_of: tuple[str, ...]
    why: str
    commands: tuple[str, ...] = ()


_TARGETS = ("--max-drop", "--min-sqnr", "--max-divergence")
_UNEQUAL = (*(f"--{kind}" for kind in names.BUDGETS), *_TARGETS)
# Choices of an option that need more than others do, as a requirement is written.
_TAILORING = "|".join(name for name in names.STRATEGIES if name != names.UNIFORM)
_COMPARING = "|".join(names.COMPARING_STRATEGIES)
_FITTED_TO_DATA = "|".join(name for name in names.RECOVERIES if name not in names.RECOVERIES_WITHOUT_DATA)

REQUIREMENTS = (
    Requirement(
        ("--provider", "--threads"),
        ("--time", "--only-if-faster", "--latency", "--max-latency", "--round-to auto", "--train"),
        "nothing is timed or trained",
    ),
    Requirement(("--preprocess", "--tokenizer"), ("--data",), "it says how to read --data, which is missing"),
    Requirement(("--samples", f"--recover {_FITTED_TO_DATA}"), ("--data",), "there is no data"),
    Requirement(("--train", "--rotate", "--drop", "--exchanges"), ("--data",), "there is no data"),
    Requirement(
        (
            "--rate",
            "--batch",
            "--augment",
            "--intermediate",
            "--padding-mask",
            "--norm-statistics",
            "--temperature",
            "--while-training",
            "--resume",
            "--parts",
        ),
        ("--train",),
        "nothing is trained",
    ),
    Requirement(("--every",), ("--while-training",), "nothing is chosen while training"),
    Requirement(
        ("--eval", "--search", "--max-trials", "--trials", "--no-cache"),
        _TARGETS,
        "it belongs to a search for a target, and no target is given",
        commands=("prune", "quantize"),
    ),
    Requirement(
        ("--cache",),
        (*_TARGETS, "--data"),
        "scores without data are made at once, and nothing is searched",
        commands=("prune",),
    ),
    Requirement(("--jobs", "--dask"), (*_TARGETS, "--train"), "nothing is searched or trained"),
    Requirement(("--max-ratio",), (*_UNEQUAL, f"--allocation {_TAILORING}"), "every group loses the same ratio"),
    Requirement(
        ("--round-to", "--method", "--allow-slower", "--accept-damage", "--only", "--keep", "--plan-out"),
        ("--ratio", "--rank", *(f"--{kind}" for kind in names.RANK_BUDGETS)),
        "no weight becomes a product",
        commands=("compress",),
    ),
    Requirement(
        ("--bits", "--block-size", "--symmetric"),
        ("--form blocks",),
        "nothing is stored in blocks",
        commands=("quantize",),
    ),
    Requirement(("--floor",), ("--per global",), "every weight gets the same share of zeros"),
    Requirement(("--normalize",), (*_UNEQUAL, f"--allocation {_COMPARING}"), "groups are not compared"),
)


def check_requirements(function: Command) -> Command:
    """Check the options of a command against `REQUIREMENTS`, before anything else is done with them."""

    @functools.wraps(function)
    def wrapped(*args: Any, **given: Any) -> Any:
        check(click.get_current_context())
        return function(*args, **given)

    return wrapped


def check(context: click.Context) -> None:
    """Refuse options that have no effect; of what stands in a recipe or a variable, for many runs, only warn.

    Raises:
        UsageError: an option on the command line has no effect.
    """
    known = {name: option for option in context.command.params for name in option.opts}
    for requirement in REQUIREMENTS:
        if requirement.commands and context.command.name not in requirement.commands:
            continue
        helping = [text for text in requirement.one_of if text.split()[0] in known]
        if not helping or any(_holds(context, known, text) for text in helping):
            continue
        idle = [
            t.split()[0] for t in requirement.options if t.split()[0] in known and _holds(context, known, t, given=True)
        ]
        for name in idle:
            source = context.get_parameter_source(known[name].name or "")
            if source is ParameterSource.COMMANDLINE:
                raise UsageError(
                    f"{name} has no effect: {requirement.why}", hint=f"add {_or(helping)}, or leave out {name}"
                )
        for name in idle:
            place = _place(context, known[name])
            if isinstance(context.obj, Console) and not context.params.get("quiet"):
                context.obj.say(f"warning: {name} ({place}) has no effect: {requirement.why}; add {_or(helping)}")


def _holds(context: click.Context, known: dict[str, click.Parameter], text: str, *, given: bool = False) -> bool:
    """Whether an option has a value, and one that `text` asks for.

    Args:
        context: of the command.
        known: its options.
        text: an option, perhaps with values.
        given: the value must also be more than the default, or typed.
    """
    name, *values = text.split()
    option = known[name]
    value = context.params.get(option.name or "")
    if value in (None, False, ()) or (values and str(value) not in values[0].split("|")):
        return False
    if not given:
        return True
    source = context.get_parameter_source(option.name or "")
    return source is ParameterSource.COMMANDLINE or value != option.default


def _place(context: click.Context, option: click.Parameter) -> str:
    """Where an option that was not typed stands."""
    if context.get_parameter_source(option.name or "") is ParameterSource.ENVIRONMENT:
        return f"{context.auto_envvar_prefix}_{(option.name or '').upper()}"
    from onnxprune.cli.config import CONFIG

    return f"in {context.meta.get(CONFIG)}"


def _or(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
