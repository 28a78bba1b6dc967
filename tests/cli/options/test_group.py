"""Options under their titles."""

from __future__ import annotations

import re

import click

from onnxprune.cli.app import COMMANDS, app
from onnxprune.cli.options.group import TITLES

# Parameters of a command from which on the help is short.
MANY = 24


def test_options_are_listed_once_under_their_titles(run):
    listed = run("prune", "--help-all").out
    sections = re.findall(r"^(\S.*):$", listed, re.MULTILINE)
    assert sections == list(TITLES)
    command = app.get_command(click.Context(app), "prune")
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert len(re.findall(rf"^  (?:--?[\w-]+, )*{option.opts[-1]}\b(?!-)", listed, re.MULTILINE)) == 1, option.opts


def test_help_shows_the_usual_options_where_there_are_many(run):
    for name in COMMANDS:
        command = app.get_command(click.Context(app), name)
        many = len(command.params) > MANY
        assert bool(command.usual) == many, name
        listed = re.findall(r"^  (?:-\w, )?(--[\w-]+)", run(name, "--help").out, re.MULTILINE)
        if many:
            assert len(command.usual) == 8 and listed == [*command.usual, "--help", "--help-all"], name
        else:
            assert {"--quiet", "--config", "--help-all"} <= {*listed}
        assert run(name, "--help-all").out.count("\n") >= run(name, "--help").out.count("\n")
