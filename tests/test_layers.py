"""Who may import whom: a module uses its own level and those below, never one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxprune

ROOT = Path(onnxprune.__file__).parent
LEVELS = (
    ("errors", "labels", "memory", "reading", "journal", "jobs", "cluster"),
    (
        *("wire", "external", "checker", "model", "evaluate", "shapes", "contrib"),
        *("flat", "flow", "functions", "ids", "names", "protos", "symbols", "traits"),
        *("native",),
        *("sequences",),
        *("sizes", "entries", "dims", "thresholds"),
    ),
    ("rules",),
    ("runtime", "computed", "wiring", "tracing", "forming", "exactness", "grouping", "cost", "widths", "measures"),
    (
        *("interleave", "data", "footprint", "bench", "calibration", "tapped", "layers", "latency"),
        *("parameters", "tally", "evaluation", "matching", "course", "telling"),
    ),
    ("criteria", "rows", "budget", "allocate", "options", "selection"),
    (
        "cut",
        "interface",
        "plan",
        "rewrite",
        "agreement",
        "onward",
        "refit",
        "fitting",
        "recover",
        "datafree",
        "goals",
        "holds",
        "timing",
        "stepwise",
    ),
    (
        "reference",
        "exact",
        "compare_outputs",
        "inside",
        "strength",
        "kept",
        "proof",
        "halving",
        "api",
        "probe",
        "curves",
        "target",
        "search",
    ),
    ("report", "cli"),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
# The door to the library and the one to the command line, which only hand over.
DOORS = {"__init__", "__main__"}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def unit_of(path: Path) -> str:
    """The part of the table that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything that a file imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            if node.module == "onnxprune":
                yield from ((f"onnxprune.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module or "", node.lineno


def inner_imports(path: Path) -> Iterator[tuple[str, int]]:
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] == "onnxprune" and len(parts) > 1 and not parts[1].startswith("__"):
            yield parts[1], line


def test_every_module_has_a_level() -> None:
    assert {unit_of(p) for p in modules()} - DOORS == set(LEVEL_OF)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    unit = unit_of(path)
    if unit in DOORS:
        return
    for name, line in inner_imports(path):
        assert LEVEL_OF[name] <= LEVEL_OF[unit], f"{path.name}:{line} ({unit}) imports {name}, which is above it"


def test_no_two_modules_import_each_other() -> None:
    """Within a level too, also through others."""
    graph: dict[str, set[str]] = {}
    for path in modules():
        if unit_of(path) not in DOORS:
            graph.setdefault(unit_of(path), set()).update(n for n, _ in inner_imports(path) if n != unit_of(path))
    done: set[str] = set()
    while left := [n for n in graph if n not in done]:
        ready = [n for n in left if graph[n] <= done]
        assert ready, f"a circle among {left}"
        done.update(ready)


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("onnx_graphsurgeon", "model"),
        ("onnxruntime", "runtime"),
        ("click", "cli"),
        ("PIL", "calibration"),
        ("distributed", "cluster"),
        ("matplotlib", "report"),
        ("tokenizers", "calibration"),
    ],
)
def test_one_module_owns_a_dependency(package: str, owner: str) -> None:
    users = {unit_of(p) for p in modules() for name, _ in imported(p) if name.split(".")[0] == package}
    assert users <= {owner}


def test_labels_know_numpy_only() -> None:
    roots = {name.split(".")[0] for name, _ in imported(ROOT / "labels.py")}
    assert roots <= {"__future__", "collections", "dataclasses", "typing", "numpy"}


def test_public_names() -> None:
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onnxprune.nothing


def test_the_package_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, onnxprune; print([m for m in ('numpy', 'onnx', 'onnxruntime', 'click') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "[]"
