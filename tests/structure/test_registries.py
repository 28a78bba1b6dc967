"""Every choice that the command line offers is what its registry holds."""

from __future__ import annotations

from collections.abc import Collection

import click
import pytest

from onnxprune import criteria, names
from onnxprune.allocation.kinds import KINDS
from onnxprune.allocation.options import Options
from onnxprune.allocation.strategies import STRATEGIES
from onnxprune.autodiff.optimizers import OPTIMIZERS, SCHEDULES
from onnxprune.cli.app import COMMANDS, app
from onnxprune.criteria.aggregate import AGGREGATIONS
from onnxprune.criteria.normalize import NORMALIZATIONS
from onnxprune.pipelines import dynamic_units, dynamic_zeros
from onnxprune.pipelines.iterative import PARTS
from onnxprune.recovery import METHODS
from onnxprune.recovery.augment import AUGMENTATIONS
from onnxprune.sparsity import METHODS as MASKINGS

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
    for command, words in choices("--recover").items():
        assert set(words) == {"none", *METHODS}, command


@pytest.mark.parametrize(
    ("listed", "registered"),
    [
        (names.STRATEGIES, STRATEGIES),
        (names.RECOVERIES, METHODS),
        (names.RECOVERIES_WITHOUT_DATA, [m.name for m in METHODS.values() if not m.needs_data]),
        (names.AGGREGATIONS, AGGREGATIONS),
        (names.NORMALIZATIONS, NORMALIZATIONS),
        (names.BUDGETS, KINDS),
        (names.MASKINGS, MASKINGS),
        (names.OPTIMIZERS, OPTIMIZERS),
        (names.STEP_SCHEDULES, PARTS),
        (names.RATE_SCHEDULES, SCHEDULES),
        (names.AUGMENTATIONS, AUGMENTATIONS),
        (names.WHILE_TRAINING, dynamic_units.WAYS),
        (names.ZEROS_WHILE_TRAINING, dynamic_zeros.WAYS),
    ],
)
def test_names_for_help_are_the_registry(listed: Collection[str], registered: Collection[str]) -> None:
    assert sorted(listed) == sorted(registered)


def test_budgets_are_options() -> None:
    fields = Options.__dataclass_fields__
    assert set(KINDS) <= set(fields)
    for name in ("prune", "plan"):
        command = app.get_command(CONTEXT, name)
        assert command is not None
        assert set(KINDS) <= {p.name for p in command.params}, name


def test_criteria_are_found() -> None:
    assert {*criteria.KNOWN} <= {*criteria.names()}
