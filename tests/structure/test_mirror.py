"""Tests lie beside what they test: `onnxprune/a/b.py` is tested by `tests/a/test_b.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.structure.tree import FORWARDS, MODULES, PACKAGES, ROOT, definitions

TESTS = ROOT.parent / "tests"

# Modules that are tested as a family: every member by the same cases, in one file.
FAMILIES = {
    "onnxprune.autodiff": "autodiff/test_training_graph.py",
    "onnxprune.autodiff.lowering": "autodiff/test_rules.py",
    "onnxprune.autodiff.vjp": "autodiff/test_rules.py",
    "onnxprune.checkpoints": "checkpoints/test_masks.py",
    "onnxprune.cli.options": "cli/test_extreme_values.py",
    "onnxprune.model.shapes": "model/shapes/test_infer.py",
    "onnxprune.torch": "torch/test_module.py",
    "onnxprune.torch.rules": "torch/test_rules.py",
    "onnxprune.tracing.rules": "tracing/test_operators.py",
}
# Modules whose tests bear another name, and why that says more.
ELSEWHERE = {
    "onnxprune.proof.zeroed_original": ("proof/test_bisect.py", "it is asked where other sizes find other groups"),
    "onnxprune.proof.layer_run": ("proof/test_layerwise.py", "layers are what is run"),
}
# Nothing to test but what every other test imports: names, aliases of types.
WORDS = {"onnxprune.names": "structure/test_registries.py", "onnxprune.typing": ""}

SELF_EVIDENT = {*PACKAGES, *FORWARDS, "onnxprune", "onnxprune.__main__"}


def own(module: str) -> Path:
    """Where the tests of a module lie."""
    *folders, name = module.split(".")[1:]
    return TESTS.joinpath(*folders, f"test_{name}.py")


def has_tests(path: Path) -> bool:
    return path.is_file() and "def test_" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted({*MODULES} - SELF_EVIDENT - {*WORDS}))
def test_every_module_has_its_tests(module: str) -> None:
    if not has_tests(own(module)):
        family = FAMILIES.get(module.rpartition(".")[0])
        other = ELSEWHERE[module][0] if module in ELSEWHERE else family
        assert other is not None, f"{module}: write {own(module).relative_to(TESTS.parent)}"
        assert has_tests(TESTS / other), f"{module}: {other} has no tests"


def test_exceptions_are_needed() -> None:
    """A module that has got a file of its own needs none, nor does one that is no longer there."""
    assert [m for m in ELSEWHERE if m not in MODULES or has_tests(own(m))] == []
    assert [m for m in WORDS if m not in MODULES or any(True for _ in definitions(m))] == []
    families = {m.rpartition(".")[0] for m in {*MODULES} - SELF_EVIDENT if not has_tests(own(m)) and m not in ELSEWHERE}
    assert sorted({*FAMILIES} - families) == []


def test_every_test_is_of_a_module_or_of_a_whole() -> None:
    """A file of tests is of one module, or says in its first line what it is about."""
    for path in TESTS.rglob("test_*.py"):
        assert path.read_text(encoding="utf-8").startswith('"""'), path
