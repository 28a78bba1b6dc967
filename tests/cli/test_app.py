"""The root command: help, versions, misspelt commands, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


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
