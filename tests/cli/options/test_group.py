"""Options under their titles."""

from __future__ import annotations

import re

import click

from onnxprune.cli.app import app
from onnxprune.cli.options.group import TITLES


def test_options_are_listed_once_under_their_titles(run):
    listed = run("prune", "--help").out
    sections = re.findall(r"^(\S.*):$", listed, re.MULTILINE)
    assert sections == list(TITLES)
    command = app.get_command(click.Context(app), "prune")
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b(?!-)", listed, re.MULTILINE)) == 1, option.opts
