"""Models and plans from strangers: what is read, written, loaded and evaluated."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import MODELS, Run, run
from tests.cli.test_bad_input import external

__all__ = ["run"]

ROOT = MODELS.parent
MODEL = MODELS / "mlp.onnx"

# Runs a command after a harmless one (so that everything is imported), and tells what it does from then on.
WATCHED = """
import json, sys
from onnxprune.cli import main
arguments = json.loads(sys.argv[1])
main(["prune", sys.argv[2], "-o", sys.argv[3], "-q"])
seen = []
WATCHED = ("exec", "compile", "import", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
           "ctypes.dlopen", "socket.connect", "os.rename", "os.remove", "os.mkdir", "os.symlink", "os.link", "open")
def hook(event, given):
    if event in WATCHED:
        seen.append([event, *(repr(g) for g in given[:3])])
sys.addaudithook(hook)
code = main(arguments)
print(json.dumps([code, seen[:]]))
"""


def watched(folder: Path, *arguments: object) -> tuple[int, list[list[str]]]:
    """Exit code of a command that runs in `folder`, and the audit events it raised."""
    first = folder.parent / "first.onnx"
    command = [sys.executable, "-P", "-c", WATCHED, json.dumps([str(a) for a in arguments]), str(MODEL), str(first)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    code, events = json.loads(ran.stdout.splitlines()[-1])
    first.unlink()
    return code, events


def written(events: list[list[str]]) -> set[str]:
    """Folders in which files were opened for writing, made, moved or removed."""
    found = set()
    for event, *given in events:
        writes = event == "open" and any(flag in given[1] for flag in "wxa+")
        if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.symlink", "os.link"):
            found.add(str(Path(given[0].strip("'")).parent))
    return found


# --- external data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "link.bin", "folder/weights.bin"])
@pytest.mark.parametrize("verb", ["inspect", "plan", "apply", "verify", "diff"])
def test_no_command_reads_outside_of_the_folder(run: Run, tmp_path: Path, verb: str, location: str) -> None:
    """`prune` is in test_cli_bad_input."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "weights.bin").write_bytes((MODELS / "external.data").read_bytes())
    (inner / "link.bin").symlink_to("../weights.bin")
    (inner / "folder").symlink_to("..")
    model = external(inner, location)
    (tmp_path / "plan.json").write_bytes(run("plan", MODELS / "external.onnx").raw)
    more = {"apply": [tmp_path / "plan.json", "-o", tmp_path / "o.onnx"], "diff": [MODELS / "external.onnx"]}
    more["verify"] = [MODELS / "external.onnx", "--plan", tmp_path / "plan.json"]
    ran = run(verb, model, *more.get(verb, []))
    assert ran.code == 3 and location in ran.err, ran.err
    assert not (tmp_path / "o.onnx").exists()


# --- plans ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    from onnxprune.api import make_plan

    return json.loads(make_plan(MODEL).to_json())


BAD = [
    *(None, True, -1, 0, 1, 1.5, 1e400, 10**30, "", "x", "../../x", "__import__('os').system('id')", "{0.__class__}"),
    *([], [[]], [None], [-1], [10**30], [1.5], ["x"], {}, {"x": None}, {"batch": 10**12}, "\ud800", "a\0b"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(p for key, inner in items for p in places(inner, (*path, key)))]


def with_value(plan: dict[str, Any], path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = json.loads(json.dumps(plan))
    target = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return copy


def test_any_value_in_any_place_of_a_plan(run: Run, tmp_path: Path, plan: dict[str, Any]) -> None:
    """Refused, or carried out as far as it makes sense; never a bug, never a file besides the output."""
    rng = random.Random(0)
    source, out = tmp_path / "plan.json", tmp_path / "out" / "small.onnx"
    out.parent.mkdir()
    cases = [(path, value) for path in places(plan) for value in BAD]
    for path, value in rng.sample(cases, 150):
        source.write_text(json.dumps(with_value(plan, path, value)))
        ran = run("apply", MODEL, source, "-o", out, "--force", "--no-verify")
        assert ran.code in (0, 1, 2), (path, value, ran.err)
        assert set(out.parent.iterdir()) <= {out}
        assert {p.name for p in tmp_path.iterdir()} == {"plan.json", "out"}


def test_a_plan_is_data(tmp_path: Path, plan: dict[str, Any]) -> None:
    """Nothing in it is evaluated, imported or opened, and only the output is written."""
    inner = tmp_path / "inner"
    inner.mkdir()
    code = "__import__('os').system('touch owned')"
    strange = plan | {"source": {"name": "../../../owned", "digest": code}, "output": "../owned", code: code}
    strange["options"] = plan["options"] | {"criterion": code, "sizes": {code: 3}}
    strange["groups"][0]["kind"] = code
    (inner / "plan.json").write_text(json.dumps(strange))
    (tmp_path / "out").mkdir()
    code, events = watched(inner, "apply", MODEL, "plan.json", "-o", tmp_path / "out" / "small.onnx")
    assert code == 0
    assert written(events) == {str(tmp_path / "out")}
    assert {e[0] for e in events} <= {"open", "os.rename", "os.remove", "import", "exec", "compile"}
    assert not any("owned" in part or "__import__" in part for event in events for part in event)


# --- code -------------------------------------------------------------------------------------------------


def test_nothing_next_to_a_model_is_loaded(tmp_path: Path) -> None:
    """A model may name any domain; what lies beside it stays closed, whatever it is called."""
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(MODELS / "custom_op.onnx", inner / "model.onnx")
    bait = ("com.py", "example.py", "custom_op.py", "onnxruntime_extensions.py", "sitecustomize.py", "onnxprune.toml")
    for name in (*bait, "libcustom_op.so", "custom_op.so", "com.example.so", "model.so", "model.onnx.py"):
        (inner / name).write_text("raise SystemExit('owned')\n")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "small.onnx"
    code, events = watched(inner, "prune", "model.onnx", "-o", out, "--no-verify")
    assert code == 0 and out.exists()
    touched = {part for event in events for part in event if any(n in part for n in (*bait, ".so'"))}
    assert not {t for t in touched if "site-packages" not in t and "lib-dynload" not in t}
    assert not {e[0] for e in events} & {"ctypes.dlopen", "subprocess.Popen", "os.system", "socket.connect"}
    code, events = watched(inner, "prune", "model.onnx", "-o", out, "--force")
    assert code == 1  # the runtime does not know the operator, and nobody tells it
