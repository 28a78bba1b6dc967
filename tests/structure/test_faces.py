"""Outside of a package, its face is used, or a module that is listed as open."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import onnxprune
from tests.structure.allowed import OPEN, OPEN_PACKAGES
from tests.structure.tree import FILES, FORWARDS, MODULES, PACKAGES, exported, own_imports, package_of, tree

TOP = {name for name in PACKAGES if name.count(".") == 1}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_face_is_one_sentence_and_its_names(package: str) -> None:
    assert (ast.get_docstring(tree(package)) or "").partition("\n")[0].endswith((".", ":"))
    names = exported(package)
    inside = {m.rpartition(".")[2] for m in MODULES if m.startswith(f"{package}.")} if names else set()
    if package != "onnxprune.tracing.rules":  # its modules are its content
        assert not names & inside, "a face and a module of the same name hide each other"


def _from_outside() -> set[str]:
    """Modules that another package imports from, as the statements name them."""
    return {
        i.module
        for module in MODULES
        for i in own_imports(module)
        if package_of(i.module) != package_of(module)
        and i.module not in FORWARDS
        and f"onnxprune.{package_of(i.module)}" in TOP
    }


@pytest.mark.parametrize("module", [m for m in MODULES if m != "onnxprune"])
def test_other_packages_are_entered_by_the_face(module: str) -> None:
    for used in own_imports(module):
        home = f"onnxprune.{package_of(used.module)}"
        if package_of(used.module) == package_of(module) or home not in TOP:
            continue
        assert not used.name.startswith("_"), f"{used}: a private name"
        if used.module == home:
            assert not used.name or used.name in exported(home), f"{used}: not in the face"
        else:
            assert _is_open(used.module), f"{used}: not open"
            assert used.name not in exported(home), f"{used}: is in the face of {home}"


def _is_open(module: str) -> bool:
    return module in OPEN or any(f"{module}.".startswith(f"{package}.") for package in OPEN_PACKAGES)


def test_open_modules_are_used() -> None:
    assert sorted(OPEN - _from_outside()) == [], "no longer used from outside: close them"
    assert sorted(m for m in OPEN if any(m.startswith(f"{package}.") for package in OPEN_PACKAGES)) == [], "open anyway"


def test_no_package_bears_the_name_of_a_public_function() -> None:
    """`import onnxprune.trace` would put a module in the place of the function."""
    coming = {
        "sparsify",
        "shrink",
        "drop",
        "quantize",
        "compress",
        "fine_tune",
        "apply",
        "plan",
        "inspect",
        "init",
        "bench",
        "diff",
    }
    tops = {m.partition(".")[2].partition(".")[0] for m in FILES if m not in FORWARDS} - {""}
    assert tops & ({*onnxprune.__all__} | coming) == set()


def test_public_names() -> None:
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onnxprune.nothing
    assert Path(onnxprune.__file__).parent.joinpath("py.typed").is_file()
