"""`onnxprune init`: a recipe that says everything, changes nothing, and is read back."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.cli import config, recipe
from onnxprune.cli.prune import prune
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
OPTION = re.compile(r"^# ([a-z-]+ = .*)$", re.MULTILINE)
EXAMPLE = "  # an example"


def lines_of(text: str) -> list[str]:
    """The options of a recipe, out of their comments."""
    return OPTION.findall(text.partition("[prune]")[2])


@pytest.fixture
def written(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "onnxprune.toml"
    assert run("init", DIGITS, "-o", path).code == 0
    return path


def test_every_option_is_there(written: Path) -> None:
    keys = [line.split(" = ")[0] for line in lines_of(written.read_text())]
    assert keys == list(config.options_of(prune))
    assert {"ratio", "macs", "criterion", "data", "recover", "round-to"} <= set(keys)


def test_every_line_can_be_taken_out_of_its_comment(written: Path) -> None:
    for line in lines_of(written.read_text()):
        written.write_text(f"[prune]\n{line}\n")
        ((_, values),) = config.read(str(written), {"prune": prune}).items()
        assert len(values) == 1, line


def test_what_is_shown_is_the_default(written: Path) -> None:
    shown = [line for line in lines_of(written.read_text()) if not line.endswith(EXAMPLE)]
    options = config.options_of(prune)
    context = click.Context(prune)
    assert len(shown) > 12
    for key, value in tomllib.loads("\n".join(shown)).items():
        assert options[key].type_cast_value(context, value) == (options[key].get_default(context) or False), key


def test_as_it_is_it_changes_nothing(run: Run, written: Path) -> None:
    plain, given = (run(*args, "prune", DIGITS, "--dry-run", "--json") for args in ((), ("--config", written)))
    assert given.code == 0 and plain.json["groups"] == given.json["groups"]
    text = written.read_text()
    written.write_text(text.replace("# ratio = ", "ratio = ").replace('"50%"', "0.25", 1))
    found = run("--config", written, "prune", DIGITS, "--dry-run", "--json").json
    assert found["groups"] != plain.json["groups"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"type": click.IntRange(1)}, "new = 1"),
        ({"type": float, "metavar": "SECONDS"}, "new = 1"),
        ({"type": click.FloatRange(0, 0.9)}, "new = 0.5"),
        ({"type": click.Choice(["a", "b"])}, 'new = "a"'),
        ({"metavar": "AMOUNT", "multiple": True}, 'new = ["50%"]'),
        ({"metavar": "PROVIDER"}, 'new = "PROVIDER"'),
        ({"is_flag": True}, "new = false"),
        ({"default": 'a "b" \\', "metavar": "X"}, 'new = "a \\U00000022b\\U00000022 \\U0000005C"'),
    ],
)
def test_new_options_come_by_themselves(given: dict[str, Any], line: str) -> None:
    command = click.Command("prune", params=[click.Option(["--new"], **given)])
    (found,) = lines_of(recipe.text(command, [], {}))
    assert found.removesuffix(EXAMPLE) == line


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.text())
def test_any_text_is_read_back(text: str) -> None:
    command = click.Command("prune", params=[click.Option(["--new"], default=text)])
    (found,) = lines_of(recipe.text(command, [], {}))
    assert tomllib.loads(found) == {"new": text}


PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_commands_of_the_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(MODELS)
    text = PAGE.read_text()
    shown, steps = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "steps.toml").write_text(steps)
    for line in re.findall(r"^\$ onnxprune (.*)$", text, re.MULTILINE):
        assert run(*line.split()).code == 0
    assert (tmp_path / "small.onnx").exists()
    made = (tmp_path / "onnxprune.toml").read_text()
    assert set(shown.splitlines()) <= set(made.splitlines())


@pytest.mark.parametrize(("given", "message"), re.findall(r"^\| `(.*)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
def test_messages_of_the_page(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("onnxprune.toml").write_text(given if given[0] == "[" else f"[prune]\n{given}\n")
    ran = run("--config", "onnxprune.toml", "inspect", DIGITS)
    assert ran.code == 2 and ran.err.splitlines()[0] == f"error: {message}"
