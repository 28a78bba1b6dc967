"""What is said on the two streams."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

from onnxprune.cli import output
from onnxprune.cli.output import Console
from tests.cli.conftest import DIGITS


def test_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "ops"], stdout=write, stderr=subprocess.PIPE, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_quiet_says_nothing(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "") and (tmp_path / "small.onnx").exists()


def test_verbose_tells_stages(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "-v")
    assert "tracing ..." in ran.err and "rewriting" in ran.err.splitlines()[-4] + ran.err


def test_a_hint_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    for verbosity, count in ((0, 1), (0, 0), (1, 1)):
        console = Console()
        console.verbosity = verbosity
        console.hint("give more data")
        assert capsys.readouterr().err.count("hint: give more data") == count
    console.quiet = True
    console.hint("another")
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_are_wrapped_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    proof = "proof    " + "equal to the masked original, largest error 2.7e-07; " * 2
    table = "a table's row is left" + "   1.5" * 20
    said = output._fitted([proof, table, "short"], Terminal()).splitlines()
    assert all(len(line) <= 60 for line in said if "row" not in line) and said[-2:] == [table, "short"]
    assert all(line.startswith(" " * 9) for line in said[1:-2]) and len(said) > 3
    assert " ".join(" ".join(said[:-2]).split()) == " ".join(proof.split())
    assert output._fitted([proof, table], io.StringIO()) == f"{proof}\n{table}"
    assert output._fitted("one", Terminal()) == "one"


def test_a_model_within_its_budget_gets_no_hint(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "o.onnx", "--macs", "100%")
    assert ran.code == 0 and "the model was within the budget already" in ran.out and "hint" not in ran.err
