"""Pages by task: all that they hold runs as typed, in order, in an empty folder, and prints what the pages show.

`python -m tests.cli.test_task_pages [PAGE ...]` writes the pages with what the commands print now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))
BLOCK = re.compile(r"^```(console|python|toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
# A block that is a file: its first line names it. Other blocks of Python are run.
NAMED = re.compile(r"# ([\w.-]+\.(?:py|toml))\n")
# Pages that search, train and quantise: most of a minute each.
LONG = ("accuracy", "faster", "fine-tune", "quantised")
# Where time is asked for, a busy machine may miss it.
TIMED = ("--latency", "--only-if-faster")
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]\d+)?")


@dataclass(frozen=True)
class Ran:
    """A command as the page has it, and as it was run."""

    command: str
    shown: str
    said: str
    code: int


def workplace(folder: Path) -> tuple[Path, dict[str, str]]:
    """An empty folder, and an environment in which `onnxprune` and `python` are those of the tests."""
    home, programs = folder / "work", folder / "bin"
    home.mkdir()
    programs.mkdir()
    for name, command in (("onnxprune", "-m onnxprune"), ("python", "")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        script.chmod(0o755)
    own = {"ONNXPRUNE_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    return home, os.environ | own | {"PATH": f"{programs}:{os.environ['PATH']}"}


def ran(text: str, folder: Path) -> Iterator[Ran]:
    """Carry out all blocks of a page; what a block of Python prints is shown nowhere."""
    home, environment = workplace(folder)

    def run(words: str | list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, shell=isinstance(words, str), cwd=home, env=environment, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    for language, block in BLOCK.findall(text):
        named = NAMED.match(block)
        if language == "console":
            for command, shown in COMMAND.findall(block):
                done = run(command)
                yield Ran(command, shown, done.stdout + told(done.stderr), done.returncode)
        elif named:
            (home / named[1]).write_text(block, encoding="utf-8")
        else:
            assert language == "python", "a file needs a name in its first line"
            done = run([sys.executable, "-c", block])
            yield Ran(block, "", done.stdout + done.stderr, done.returncode)


def told(stderr: str) -> str:
    """What is said beside the product, without the lines of progress, which depend on the machine."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(("error: ", "warning: ", "hint: ")))


def refreshed(text: str, folder: Path) -> str:
    """The page with what its commands print, where it shows something."""
    for each in ran(text, folder):
        if each.shown:
            text = text.replace(f"$ {each.command}\n{each.shown}", f"$ {each.command}\n{each.said}", 1)
    return text


def stable(said: str) -> str:
    """Without errors of rounding, and without how long it took."""
    return re.sub(r"largest error \S+|in \S+ s\b", "", said)


def words(said: str) -> list[str]:
    return NUMBER.sub("#", stable(said)).split()


def numbers(said: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(stable(said))]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.long] * (path.stem in LONG)) for path in PAGES],
)
def test_a_page_runs_as_typed(path: Path, tmp_path: Path) -> None:
    for each in ran(path.read_text(encoding="utf-8"), tmp_path):
        failing = re.search(r"^error: ", each.shown, re.MULTILINE) is not None
        allowed = (0, 1) if any(word in each.command for word in TIMED) else (int(failing),)
        assert each.code in allowed, f"{each.command}\n{each.said}"
        if each.shown:
            assert words(each.said) == words(each.shown), each.command
            # Rounding differs between processors, and what is fitted and trained with it.
            assert numbers(each.said) == pytest.approx(numbers(each.shown), rel=0.1, abs=0.02), each.command


if __name__ == "__main__":
    for page in PAGES:
        if not sys.argv[1:] or page.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as scratch:
                page.write_text(refreshed(page.read_text(encoding="utf-8"), Path(scratch)), encoding="utf-8")
