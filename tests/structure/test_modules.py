"""How the product is cut into files: their sizes, circles, and who may touch what; see also test_layers."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "onnxprune"
FILES = {str(p.relative_to(ROOT)): p for p in sorted(ROOT.rglob("*.py"))}
LONGEST_FILE = 450
LONGEST_FUNCTION = 60


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def dotted(name: str) -> str:
    """The module that a file is."""
    return ".".join(["onnxprune", *Path(name).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {dotted(name): name for name in FILES}


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Every module that a file names in an import, inside of functions too."""
    return frozenset(_imports(name))


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{name}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def test_no_circles():
    # The package itself only hands over, lazily; its version is for everyone.
    graph = {m: {i for i in imports(f) if i in MODULES and i != "onnxprune"} for m, f in MODULES.items()}
    del graph["onnxprune"]
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("onnx_graphsurgeon", "model/model.py"),
        ("onnxruntime", "runtime/session.py"),
        ("torch", ""),
        ("scipy", ""),
        ("pandas", ""),
    ],
)
def test_who_imports_what_is_heavy_or_odd(package, owner):
    users = {name for name in FILES if package in {i.partition(".")[0] for i in imports(name)}}
    assert users <= {owner}


def test_click_is_for_the_command_line():
    users = {name for name in FILES if "click" in {i.partition(".")[0] for i in imports(name)}}
    assert {Path(name).parts[0] for name in users} <= {"cli"}


def test_only_the_console_prints():
    printing = {
        f"{name}:{node.lineno}"
        for name in FILES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {place for place in printing if not place.startswith("cli/output.py:")} == set()


def test_only_the_command_line_knows_the_streams():
    """`sys.stdout` and `sys.stderr`: in the command line, and where "-" is a model."""
    users = {
        name
        for name in FILES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute)
        and node.attr in ("stdout", "stderr")
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    }
    assert {name for name in users if not name.startswith("cli/")} <= {"model/model.py"}


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_can_be_read_at_once(name):
    lines = len(FILES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{name} has {lines} lines"
    long = {
        f"{node.name} ({length} lines)"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert not long, f"{name}: {', '.join(sorted(long))}"
