"""Every library has one owner, and few modules touch the world outside."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.structure.tree import MODULES, ROOT, imports, package_of, tree

OWNERS = {
    "click": "onnxprune.cli",
    "PIL": "onnxprune.calibration",
    "tokenizers": "onnxprune.calibration",
    "matplotlib": "onnxprune.report",
    "jinja2": "onnxprune.report",
    "pandas": "onnxprune.report",
    "onnxruntime": ("onnxprune.runtime.session", "onnxprune.runtime.quantizer"),
    "distributed": "onnxprune.runtime.dask",
    "onnx_graphsurgeon": "onnxprune.model.foreign",
    "torch": "onnxprune.torch",
    "olive": "onnxprune.olive_pass",
    "tqdm": "onnxprune.progress",
    "threadpoolctl": "onnxprune.runtime.blas",
}
BANNED = ("scipy",)


@pytest.mark.parametrize("library", [*OWNERS, *BANNED])
def test_one_owner_for_a_dependency(library: str) -> None:
    users = {m for m in MODULES if library in {i.module.partition(".")[0] for i in imports(m)}}
    found = OWNERS.get(library, "nobody")
    owners = found if isinstance(found, tuple) else (found,)
    assert {m for m in users if not any(m == owner or m.startswith(f"{owner}.") for owner in owners)} == set()


@pytest.mark.parametrize("module", ["onnxprune", "onnxprune.cli"])
def test_the_doors_import_nothing_heavy(module: str) -> None:
    heavy = ("numpy", "onnx", "onnxruntime") + (("click",) if module == "onnxprune" else ())
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "[]"


def test_labels_know_numpy_only() -> None:
    roots = {i.module.partition(".")[0] for i in imports("onnxprune.tracing.labels")} - {"onnxprune"}
    assert roots <= {"__future__", "collections", "dataclasses", "typing", "numpy"}


def test_only_the_console_prints() -> None:
    printing = {
        f"{module}:{node.lineno}"
        for module in MODULES
        if module != "onnxprune.cli.output"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == set()


def test_only_the_command_line_knows_the_streams() -> None:
    """`sys.stdout` and `sys.stderr`: in the command line, where "-" is a model, and where progress is shown."""
    users = {
        module
        for module in MODULES
        if package_of(module) != "cli"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute)
        and node.attr in ("stdout", "stderr")
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    }
    assert users <= {"onnxprune.model.files", "onnxprune.progress"}
