"""Modules that add rules and criteria: of installed packages, of the command line, in workers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.errors import UsageError
from onnxprune.plugins import VARIABLE, load_installed, load_modules
from tests.cli.conftest import DIGITS
from tests.structure.tree import ROOT

PLUGIN = """
import numpy as np, onnxprune
def backwards(groups, rng):
    return -np.arange(groups.classes.count, dtype=float)
onnxprune.register_criterion("backwards", backwards)
"""


def command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxprune", *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent), **environment},
    )  # fmt: skip


def installed(folder: Path, value: str) -> None:
    """What pip leaves of a package with an entry point."""
    about = folder / "other-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[onnxprune.criteria]\nother = {value}\n")


def test_a_module_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    prune = ("prune", DIGITS, "--criterion", "backwards", "--dry-run", "-q")
    assert command("--plugin", "mine", *prune, folder=tmp_path).returncode == 0
    assert command(*prune, folder=tmp_path, ONNXPRUNE_PLUGIN="mine").returncode == 0
    wrong = command("--plugin", "nowhere", *prune, folder=tmp_path)
    assert wrong.returncode == 2 and "plugin nowhere: ModuleNotFoundError" in wrong.stderr


def test_a_module_of_an_installed_package(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(PLUGIN)
    installed(tmp_path, "other")
    path = f"{ROOT.parent}{os.pathsep}{tmp_path}"
    listed = command("criteria", folder=ROOT.parent, PYTHONPATH=path)
    assert listed.returncode == 0 and "\nbackwards " in listed.stdout


def test_one_that_fails_is_left_out(tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    installed(tmp_path, "no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.WARNING, logger="onnxprune"):
        load_installed("onnxprune.criteria")
    assert "plugin 'other' (no_such_module_at_all) is left out: ModuleNotFoundError" in caplog.text


def test_processes_that_are_started_find_the_modules(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    (tmp_path / "found_plugin.py").write_text("made = True\n")
    load_modules(["found_plugin"])
    assert os.environ[VARIABLE] == "found_plugin" and sys.modules["found_plugin"].made and sys.path == before
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
        load_modules(["broken_plugin"])
    monkeypatch.delenv(VARIABLE)
