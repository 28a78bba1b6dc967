"""Every choice that the command line offers is what its registry holds."""

from __future__ import annotations

import click
import pytest

from onnxprune import criteria
from onnxprune.allocation.options import Options
from onnxprune.allocation.strategies import STRATEGIES
from onnxprune.cli.app import COMMANDS, app
from onnxprune.criteria.aggregate import AGGREGATIONS
from onnxprune.criteria.normalize import NORMALIZATIONS

CONTEXT = click.Context(app)


def choices(option: str) -> dict[str, list[str]]:
    """Command -> the words that it takes for an option."""
    found = {}
    for name in COMMANDS:
        command = app.get_command(CONTEXT, name)
        assert command is not None
        for parameter in command.params:
            if option in parameter.opts and isinstance(parameter.type, click.Choice):
                found[name] = sorted(map(str, parameter.type.choices))
    return found


@pytest.mark.parametrize(
    ("option", "registry"),
    [
        ("--allocation", STRATEGIES),
        ("--aggregate", AGGREGATIONS),
        ("--normalize", NORMALIZATIONS),
    ],
)
def test_choices_are_the_registry(option: str, registry: dict[str, object]) -> None:
    offered = choices(option)
    assert offered, f"no command has {option} with a list of words"
    for command, words in offered.items():
        assert set(words) - {"auto"} == set(registry), f"{command} {option}"


def test_recovery_methods_are_the_registry() -> None:
    from onnxprune.recovery import data_free, recover

    for command, words in choices("--recover").items():
        assert set(words) == {"none", *recover.METHODS, *data_free.METHODS}, command


def test_budgets_are_options() -> None:
    from onnxprune.allocation.selection import MEASURES

    fields = Options.__dataclass_fields__
    assert set(MEASURES) <= set(fields)
    for name in ("prune", "plan"):
        command = app.get_command(CONTEXT, name)
        assert command is not None
        assert set(MEASURES) <= {p.name for p in command.params}, name


def test_criteria_are_found() -> None:
    assert {*criteria.KNOWN} <= {*criteria.names()}
