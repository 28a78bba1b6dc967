"""Packages stand on floors: each imports its own modules and those of lower floors, never a sibling's."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import pytest

from tests.structure.tree import FORWARDS, MODULES, PACKAGES, imports, own_imports, package_of

# What every package may use, and the command line loads before anything heavy.
GROUND = ("errors", "typing", "names", "keywords", "lazy", "plugins", "progress", "shown", "system")
FLOORS: tuple[tuple[str, ...], ...] = (
    GROUND,
    ("model",),
    ("runtime", "tracing", "folder"),
    ("calibration", "autodiff", "cost", "layers"),
    ("criteria", "sparsity", "rewriting"),
    ("allocation", "checkpoints", "proof", "recovery"),
    ("pipelines", "torch"),
    ("report", "api"),
    ("cli", "olive_pass"),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
# Not only above: what these never see, so that they can be judged without it.
NEVER = {"proof": {"criteria", "allocation", "recovery"}, "recovery": {"allocation"}, "report": {"api"}}
DOORS = {"", "__main__"}
# Single arrows between siblings, each with its reason.
BESIDE = {
    # Weights that the graph computes from stored ones get their values by a run; runtime knows nothing of tracing.
    ("onnxprune.tracing.computed_weights", "onnxprune.runtime"),
}


def test_every_package_has_a_floor() -> None:
    assert {package_of(m) for m in MODULES} - DOORS <= set(FLOOR_OF)
    assert len(FLOORS) - 1 <= 8, "the floor of errors and types is not counted"


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) not in DOORS])
def test_imports_go_down(module: str) -> None:
    package = package_of(module)
    for used in own_imports(module):
        other = package_of(used.module)
        if other == package or {other, package} <= {*GROUND}:
            continue
        assert used.module not in FORWARDS, f"{used}, which has moved"
        beside = (module, used.module) in BESIDE and FLOOR_OF[other] == FLOOR_OF[package]
        assert beside or FLOOR_OF[other] < FLOOR_OF[package], f"{used}, which stands on the same floor or above"
        assert other not in NEVER.get(package, ()), f"{used}, which {package} must never see"


def test_no_two_modules_import_each_other() -> None:
    """Neither directly nor through others; a face counts as the modules that it hands on."""
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        if package_of(module) not in DOORS:
            graph[module] = {i.module for i in own_imports(module) if i.module not in FORWARDS}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", ["errors", "names", "typing"])
def test_the_ground_imports_nothing_of_the_project(name: str) -> None:
    if (module := f"onnxprune.{name}") in MODULES:
        assert not list(own_imports(module))
        assert {i.module.partition(".")[0] for i in imports(module)} <= {"__future__", "collections", "typing", "numpy"}


def test_packages_are_packages() -> None:
    assert {p for p in FLOOR_OF if f"onnxprune.{p}" in PACKAGES} >= {
        *("model", "runtime", "tracing", "calibration", "cost", "layers", "criteria", "rewriting", "allocation"),
        *("proof", "recovery", "pipelines", "report", "cli"),
    }
