"""Who may import whom: a module uses its own level and those below, never one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxprune

ROOT = Path(onnxprune.__file__).parent
LEVELS = (
    (
        "errors",
        "typing",
        "termination",
        "tracing.labels",
        "memory",
        "reading",
        "runtime.journal",
        "runtime.workers",
        "runtime.dask",
    ),
    (
        *(
            "model.serialize",
            "model.external",
            "model.validate",
            "model.model",
            "model.shapes.constant_fold",
            "model.shapes.infer",
            "model.shapes.contrib",
        ),
        *(
            "model.flatten",
            "model.control_flow",
            "model.inline",
            "tracing.token_ids",
            "model.names",
            "model.protos",
            "model.shapes.symbols",
            "model.traits",
        ),
        *("model.traps",),
        *("model.sequences",),
        *("model.shapes.polynomials", "model.shapes.entries", "model.shapes.dynamic", "model.shapes.thresholds"),
    ),
    ("tracing.rules",),
    (
        "runtime.session",
        "tracing.computed_weights",
        "model.graph",
        "tracing.graph_index",
        "tracing.tracer",
        "tracing.partition",
        "tracing.exactness",
        "tracing.groups",
        "cost.counts",
        "cost.axis_lengths",
        "cost.functions",
    ),
    (
        *(
            "runtime.paired_timing",
            "runtime.random_inputs",
            "runtime.memory",
            "runtime.bench",
            "calibration",
            "runtime.activations",
            "layers.linear",
            "cost.latency",
        ),
        *("layers.parameters", "runtime.agreement", "pipelines.user_metric", "layers.bn_matching", "model.run_order"),
    ),
    (
        "criteria",
        "layers.effective",
        "layers.readers",
        "layers.statistics",
        "allocation.named_rows",
        "allocation.amount",
        "allocation.strategies",
        "allocation.options",
        "allocation.selection",
    ),
    (
        "rewriting.removal",
        "rewriting.io_changes",
        "rewriting.plan",
        "rewriting.rewrite",
        "rewriting.compare",
        "recovery.downstream",
        "recovery.fits",
        "recovery.targets",
        "recovery.recover",
        "recovery.data_free",
        "allocation.fit_budgets",
        "allocation.blockers",
        "allocation.timed",
        "pipelines.iterative",
    ),
    (
        "proof.masked",
        "proof.quantized",
        "proof.compare_outputs",
        "proof.layerwise",
        "proof.strength",
        "proof.stored_weights",
        "proof.prove",
        "proof.bisect",
        "pipelines",
        "api",
        "pipelines.probe",
        "pipelines.sensitivity",
        "pipelines.search_targets",
        "pipelines.search",
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
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] in DOORS else unit(".".join(parts).removesuffix(".__init__"))


def unit(name: str) -> str:
    """The longest entry of the table that a dotted name begins with; none for a package that only hands over."""
    parts = name.split(".")
    heads = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((head for head in heads if head in LEVEL_OF), "")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of everything that a file imports, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def inner_imports(path: Path) -> Iterator[tuple[str, int]]:
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] == "onnxprune" and (below := unit(".".join(parts[1:]))):
            yield below, line


def test_every_module_has_a_level() -> None:
    assert {unit_of(p) for p in modules()} - DOORS - {""} == set(LEVEL_OF)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    unit = unit_of(path)
    if unit in DOORS | {""}:
        return
    for name, line in inner_imports(path):
        assert LEVEL_OF[name] <= LEVEL_OF[unit], f"{path.name}:{line} ({unit}) imports {name}, which is above it"


def test_no_two_modules_import_each_other() -> None:
    """Within a level too, also through others."""
    graph: dict[str, set[str]] = {}
    for path in modules():
        if unit_of(path) not in DOORS | {""}:
            graph.setdefault(unit_of(path), set()).update(n for n, _ in inner_imports(path) if n != unit_of(path))
    done: set[str] = set()
    while left := [n for n in graph if n not in done]:
        ready = [n for n in left if graph[n] <= done]
        assert ready, f"a circle among {left}"
        done.update(ready)


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("onnx_graphsurgeon", "model.model"),
        ("onnxruntime", "runtime.session"),
        ("click", "cli"),
        ("PIL", "calibration"),
        ("distributed", "runtime.dask"),
        ("matplotlib", "report"),
        ("tokenizers", "calibration"),
    ],
)
def test_one_module_owns_a_dependency(package: str, owner: str) -> None:
    users = {unit_of(p) for p in modules() for name, _ in imported(p) if name.split(".")[0] == package}
    assert users <= {owner}


def test_labels_know_numpy_only() -> None:
    roots = {name.split(".")[0] for name, _ in imported(ROOT / "tracing/labels.py")}
    assert roots - {"onnxprune"} <= {"__future__", "collections", "dataclasses", "typing", "numpy"}


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
