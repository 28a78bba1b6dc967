"""The examples: written whole, found in a checkout and in a wheel, and their commands work."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest

from onnxprune.cli.demo import EXAMPLES, commands
from tests.cli.conftest import MODELS, Run

DIGITS = EXAMPLES["digits"]


# The others take as long, and are made in the same way.
QUICK = ("digits", "decoder")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in EXAMPLES])
def test_an_example_and_its_commands(name: str, run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("demo", *(() if name == "digits" else ("--example", name)))
    assert ran.code == 0 and all(command in ran.out for command in commands(name))
    assert all((tmp_path / file).read_bytes() == (MODELS / file).read_bytes() for file in EXAMPLES[name])
    for command in commands(name):
        done = run(*command.removeprefix("onnxprune ").split())
        assert done.code == 0, done.err


def test_existing_files_are_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / DIGITS[1]).write_text("mine")
    ran = run("demo", tmp_path)
    assert ran.code == 2 and "exists" in ran.err and [p.name for p in tmp_path.iterdir()] == [DIGITS[1]]
    quiet = run("demo", tmp_path, "--force", "--quiet")
    assert quiet.code == 0 and not quiet.out and not quiet.err
    assert run("demo", tmp_path / "nowhere").code == 2
    assert run("demo", tmp_path, "--example", "resnet").code == 2


def test_the_wheel_holds_the_examples() -> None:
    project = tomllib.loads((MODELS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    inside = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    names = itertools.chain(*EXAMPLES.values())
    assert inside == {f"models/{name}": f"onnxprune/examples/{name}" for name in names}
    assert all((MODELS.parent / source).is_file() for source in inside)
