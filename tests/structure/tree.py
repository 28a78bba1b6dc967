"""The package as its files say it is: modules, imports, definitions. Nothing of it is run."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2] / "onnxprune"
# Paths that were documented before files moved; each hands over with a warning and has no other content.
FORWARDS = {"onnxprune.bench", "onnxprune.search", "onnxprune.rules", "onnxprune.rules.site"}


def dotted(path: Path) -> str:
    """The module that a file is."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {dotted(path): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = {name: path for name, path in FILES.items() if name not in FORWARDS}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py" and name != "onnxprune"}


def package_of(module: str) -> str:
    """The package, or the file at the top, that a module belongs to."""
    return module.removeprefix("onnxprune").removeprefix(".").partition(".")[0]


@functools.cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    Attributes:
        importer: the module.
        line: where.
        module: what it imports from: a module of the package, or another library.
        name: the imported name; empty for a whole module.
        statement: the module as the statement names it.
    """

    importer: str
    line: int
    module: str
    name: str
    statement: str

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.module}{'.' if self.name else ''}{self.name}"


@functools.cache
def imports(module: str) -> tuple[Import, ...]:
    """Everything that a module imports, inside of functions and for types too."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[Import]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name, "", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                known = inner in FILES
                yield Import(
                    module, node.lineno, inner if known else node.module, "" if known else alias.name, node.module
                )


def own_imports(module: str) -> Iterator[Import]:
    """Imports of other modules of the package; the door itself only hands over, lazily."""
    return (i for i in imports(module) if i.module in FILES and i.module != "onnxprune")


@functools.cache
def exported(module: str) -> frozenset[str]:
    """The names in `__all__`."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def definitions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes at the top of a module."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a module."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
