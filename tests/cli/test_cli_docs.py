"""The examples in docs/cli.md: every command is run, and prints what the page shows.

`python -m tests.cli.test_cli_docs` writes the page anew with what the commands print now.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def run_block(block: str, folder: Path) -> str:
    """The block with the real output after each of its commands."""
    shown = []
    # Hints are said once, measurements kept: every page is a user's first.
    own = {"ONNXPRUNE_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    for line in block.splitlines():
        if line.startswith("$ "):
            done = subprocess.run(
                line[2:], shell=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | own,
                check=False,
            )  # fmt: skip
            shown.append(f"{line}\n{done.stdout}")
    return "".join(shown)


def refreshed(text: str, folder: Path) -> str:
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "bin").mkdir()
    for name, command in (("onnxprune", "-m onnxprune"), ("python", "")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        script.chmod(0o755)
    return BLOCK.sub(lambda match: f"```console\n{run_block(match[1], folder)}```", text)


def stable(text: str) -> str:
    """Without the last digits of measured errors, which differ between machines, and what only slow ones say."""
    return re.sub(r"largest error \d\.\de-\d\d", "largest error E", re.sub(r"(?m)^\w+, for [\d ms]+\n", "", text))


def test_page_shows_what_the_commands_print(tmp_path):
    text = PAGE.read_text()
    assert stable(refreshed(text, tmp_path)) == stable(text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(refreshed(PAGE.read_text(), Path(scratch)))
