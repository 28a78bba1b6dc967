"""What is imported when: the door nothing heavy, the help no command, and a verb no other verb."""

from __future__ import annotations

import subprocess
import sys

import pytest

import onnxprune
from onnxprune.lazy import on_first_use
from tests.structure.tree import ROOT

MODELS = ROOT.parent / "models"
LIBRARIES = ("numpy", "onnx", "onnxruntime", "google", "ml_dtypes", "matplotlib", "distributed", "PIL", "tokenizers")
# What only some need: gradients, the other verbs, what they choose with.
GRADIENTS = (
    "onnxprune.autodiff",
    "onnxprune.pipelines.train",
    "onnxprune.pipelines.dynamic_units",
    "onnxprune.recovery.fine_tune",
    "onnxprune.recovery.objectives",
)
OTHERS = ("sparsify", "drop", "compress", "shrink", "search", "sensitivity", "apply")
VERBS = tuple(f"onnxprune.pipelines.{verb}" for verb in OTHERS)
OPTIONAL = ("matplotlib", "jinja2", "distributed", "PIL", "tokenizers", "onnx_graphsurgeon")

COMMAND = "from onnxprune.cli import main; assert main({!r}) == 0"
PRUNE = COMMAND.format(["prune", f"{MODELS}/digits.onnx", "--ratio", "0.5", "--dry-run", "-q"])
CALL = f"import onnxprune; onnxprune.prune({str(MODELS / 'digits.onnx')!r}, 0.5)"


def imported(code: str) -> set[str]:
    """All modules that are there after a program has run."""
    program = f"{code}\nimport sys; print('\\n' + ' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(out.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("import onnxprune", (*LIBRARIES, "click", "onnxprune.api", "onnxprune.cli")),
        ("import onnxprune.cli", (*LIBRARIES, "onnxprune.api", "onnxprune.cli.prune")),
        (COMMAND.format(["--help"]), (*LIBRARIES, "onnxprune.api", "onnxprune.cli.prune", "onnxprune.model")),
        (COMMAND.format(["prune", "--help"]), (*LIBRARIES, "onnxprune.api", "onnxprune.cli.sparsify")),
        (PRUNE, (*GRADIENTS, *VERBS, *OPTIONAL, "onnxprune.api", "onnxprune.sparsity", "onnxprune.runtime.workers")),
        (CALL, (*GRADIENTS, *VERBS, *OPTIONAL, "onnxprune.sparsity", "click")),
    ],
    ids=["import", "import the command line", "--help", "prune --help", "prune", "onnxprune.prune"],
)
def test_what_is_not_used_is_not_imported(code: str, never: tuple[str, ...]) -> None:
    assert sorted(imported(code) & {*never}) == []


def test_names_of_never_are_modules() -> None:
    """A module that moved would be watched in vain."""
    for name in (*GRADIENTS, *VERBS, "onnxprune.sparsity", "onnxprune.runtime.workers", "onnxprune.cli.prune"):
        assert __import__(name)


def test_the_public_names_are_listed_and_found() -> None:
    assert dir(onnxprune) == sorted([*onnxprune.__all__, "__version__"])
    assert onnxprune.sparsify.__module__ == "onnxprune.pipelines.sparsify_source"
    assert onnxprune.register_rule.__name__ == "rule"


def test_a_name_may_go_by_another_one_at_home() -> None:
    find = on_first_use("house", {"root": "math:sqrt", "floor": "math"})
    assert find("root")(9) == find("floor")(3.5) == 3
    with pytest.raises(AttributeError, match="module 'house' has no attribute 'sqrt'"):
        find("sqrt")
