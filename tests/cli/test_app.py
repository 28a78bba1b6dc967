"""The root command: help, versions, misspelt commands, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import DIGITS


def shell(*arguments: str, **given) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, cwd=Path(__file__).parents[2], check=False, **given
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["prune", "--help"], ["plan", "-h"], ["criteria", "-h"], ["ops", "--help"]]
)
def test_help_imports_no_onnx_and_no_numpy(arguments):
    code = (
        "import sys; from onnxprune.cli import main; code = main(sys.argv[1:]);"
        "heavy = {m.partition('.')[0] for m in sys.modules} & {'onnx', 'numpy', 'onnxruntime', 'google'};"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = shell("-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: onnxprune")


def test_module_and_version():
    done = shell("-m", "onnxprune", "--version")
    assert done.returncode == 0 and done.stdout.startswith(b"onnxprune ")


def test_no_arguments_show_the_help(run):
    ran = run()
    assert ran.code == 0 and "Commands:" in ran.out


def test_every_command_has_help(run):
    for name in ("inspect", "prune", "plan", "apply", "verify", "diff", "criteria", "ops"):
        ran = run(name, "--help")
        assert ran.code == 0 and ran.out.startswith(f"Usage: onnxprune {name}")


def test_misspelt_command_is_suggested(run):
    ran = run("prnue")
    assert ran.code == 2 and "did you mean 'prune'?" in ran.err


def test_completion_script():
    done = shell("-m", "onnxprune", env=os.environ | {"_ONNXPRUNE_COMPLETE": "bash_source"})
    assert done.returncode == 0 and b"complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pru", "plain,prune"),
        ("prune mo", "file,mo"),
        ("prune m.onnx -o ", "file,"),
        ("prune m.onnx --data inp", "file,inp"),
        ("prune --trials t", "dir,t"),
        ("prune --criterion taylor-", "plain,taylor-weight"),
        ("bench --provider C", "plain,CPU"),
        ("prune --allocation gr", "plain,greedy"),
        ("prune --augment flip,s", "plain,flip,shift"),
        ("sparsify --method sparse", "plain,sparsegpt"),
        ("prune --config c", "file,c"),
    ],
)
def test_the_shell_completes(words, offered):
    line = f"onnxprune {words}"
    asked = {"_ONNXPRUNE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = shell("-m", "onnxprune", env=os.environ | asked)
    assert offered in done.stdout.decode().splitlines()


def test_options_by_the_names_of_python_and_of_other_tools(run, tmp_path) -> None:
    plain = run("prune", DIGITS, "--dry-run", "--json", "--ratio", "0.25", "--keep", "fc*")
    other = run("prune", DIGITS, "--dry-run", "--json", "--prune-ratio=0.25", "--exclude", "fc*")
    assert plain.code == other.code == 0 and plain.json["after"] == other.json["after"]
    assert run("prune", DIGITS, "--dry-run", "--sparsity", "25%", "--exclude", "fc*").out == (
        run("prune", DIGITS, "--dry-run", "-r", "25%", "--keep", "fc*").out
    )
    (tmp_path / "own.toml").write_text('[prune]\namount = 0.25\nexclude = ["fc*"]\n')
    config = run("--config", tmp_path / "own.toml", "prune", DIGITS, "--dry-run", "--json")
    assert config.code == 0 and config.json["after"] == plain.json["after"]
    both = tmp_path / "both.toml"
    both.write_text("[prune]\namount = 0.25\nratio = 0.5\n")
    assert run("--config", both, "prune", DIGITS, "--dry-run").code == 2
    # Which of two is meant, nobody knows.
    assert run("sparsify", DIGITS, "--dry-run", "--amount", "0.5").code == 2
