"""The schema of recipes: it is published as it is, and takes and refuses what reading a recipe does."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click
import pytest

from onnxprune.cli import config
from onnxprune.cli.app import COMMANDS, STEPS, app
from onnxprune.cli.recipe_schema import recipe_schema
from onnxprune.errors import UsageError

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]


def commands() -> dict[str, click.Command]:
    root = click.Context(app)
    return {name: command for name in COMMANDS if (command := app.get_command(root, name))}


@pytest.fixture(scope="module")
def schema() -> dict:
    return recipe_schema(commands(), STEPS)


def test_it_is_published_and_a_schema(schema) -> None:
    assert json.loads((ROOT / "docs" / "schemas" / "recipe.json").read_text(encoding="utf-8")) == schema
    jsonschema.Draft202012Validator.check_schema(schema)


def test_it_knows_every_option(schema) -> None:
    for name, command in commands().items():
        assert {*schema["properties"][name]["properties"]} == {*config.options_of(command)}


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ('[prune]\nratio = "40%"\nkeep = ["conv.weight"]\nround-to = 8\nverify = true', True),
        ('[prune]\nkeep = "conv*"\nsamples = 64\naugment = ["flip", "shift"]', True),
        ('[[step]]\nrun = "prune"\nmacs = "50%"\n[[step]]\nrun = "sparsify"\npattern = "2:4"', True),
        ("[prune]\nratoi = 0.5", False),
        ("[prune]\nsamples = 0", False),
        ("[prune]\nsamples = true", False),
        ('[prune]\nallocation = "fair"', False),
        ('[prune]\nratio = ["40%"]', False),
        ("[prnue]\nratio = 0.5", False),
        ('[[step]]\nrun = "inspect"', False),
        ("[[step]]\nratio = 0.5", False),
    ],
)
def test_it_judges_as_reading_does(schema, text: str, is_good: bool, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    assert jsonschema.Draft202012Validator(schema).is_valid(tomllib.loads(text)) == is_good
    try:
        config.read(str(recipe), commands())
        if "[[step]]" in text:
            config.read_steps(str(recipe), {name: commands()[name] for name in STEPS})
        read = True
    except UsageError:
        read = False
    assert read == is_good
