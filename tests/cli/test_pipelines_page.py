"""The page about pipelines: its YAML is read, and its commands are run, and gate out what they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def read(holding: str) -> Any:
    """The one YAML of the page with this key."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    (found,) = [document for document in map(yaml.safe_load, blocks("yaml")) if holding in document]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").symlink_to(ROOT / "models")
    return tmp_path


def ran(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command as a runner gives it to its shell, which ends at the first error."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": places, "PYTHONPATH": str(ROOT)}
    arguments = ["bash", "-e", "-o", "pipefail", "-c", command]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def commands_of_the_action() -> dict[str, str]:
    (job,) = read("jobs")["jobs"].values()
    assert job["runs-on"] and all("uses" in step or "run" in step for step in job["steps"])
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


@pytest.mark.long  # times are compared, which other work on the machine changes
def test_the_action_passes_a_good_model(folder: Path) -> None:
    set_up, prune, gate = commands_of_the_action().values()
    assert set_up == "pip install onnxprune"
    done = ran(prune, folder)
    assert done.returncode == 0, done.stderr
    passed = ran(gate, folder)
    assert passed.returncode == 0, passed.stderr


def test_the_action_gates_out_a_divergent_model(folder: Path) -> None:
    *_, gate = commands_of_the_action().values()
    done = ran("onnxprune prune models/digits.onnx -o small.onnx --ratio 0.5 --force", folder)
    assert done.returncode == 0, done.stderr
    failed = ran(gate, folder)
    assert failed.returncode == 1
    assert "error: small.onnx: its outputs diverge by error=0.88" in failed.stderr
    (told,) = [text for text in blocks("text") if text.startswith("error:")]
    assert told.splitlines()[0].partition("=")[0] in failed.stderr


def test_a_model_that_is_not_faster_is_gated_out(folder: Path) -> None:
    (folder / "small.onnx").write_bytes((ROOT / "models" / "digits.onnx").read_bytes())
    failed = ran(commands_of_the_action()["At most 1 % divergence, at least 25 % faster"], folder)
    assert failed.returncode == 1 and "not at most 75 %" in failed.stderr and "diverge" not in failed.stderr


def test_the_hook_and_the_command_are_the_gate_of_the_action() -> None:
    ((hook,),) = [repository["hooks"] for repository in read("repos")["repos"]]
    assert {"id", "name", "entry", "language"} <= set(hook) and re.search(hook["files"], "small.onnx")
    assert hook["entry"] == commands_of_the_action()[hook["name"].capitalize()]
    assert hook["entry"] in " ".join(blocks("sh")[0].split())


def test_the_command_in_the_container(folder: Path) -> None:
    (line,) = [text for text in blocks("sh") if text.startswith("docker run")]
    inside = re.search(r'sh -c "pip install -q onnxprune && (onnxprune .*)"', line)
    assert inside is not None
    done = ran(inside[1], folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "small.onnx").exists()
