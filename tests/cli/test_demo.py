"""The example: written whole, found in a checkout and in a wheel, and its commands work."""

from __future__ import annotations

import tomllib
from pathlib import Path

from onnxprune.cli.demo import COMMANDS, EXAMPLES
from tests.cli.conftest import MODELS, Run


def test_the_example_and_its_commands(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("demo")
    assert ran.code == 0 and all(command in ran.out for command in COMMANDS)
    assert all((tmp_path / name).read_bytes() == (MODELS / name).read_bytes() for name in EXAMPLES)
    for command in COMMANDS:
        done = run(*command.removeprefix("onnxprune ").split())
        assert done.code == 0, done.err


def test_existing_files_are_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / EXAMPLES[1]).write_text("mine")
    ran = run("demo", tmp_path)
    assert ran.code == 2 and "exists" in ran.err and [p.name for p in tmp_path.iterdir()] == [EXAMPLES[1]]
    assert run("demo", tmp_path, "--force").code == 0
    assert run("demo", tmp_path / "nowhere").code == 2


def test_the_wheel_holds_the_example() -> None:
    project = tomllib.loads((MODELS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    inside = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert inside == {f"models/{name}": f"onnxprune/examples/{name}" for name in EXAMPLES}
    assert all((MODELS.parent / source).is_file() for source in inside)
