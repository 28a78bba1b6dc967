"""Public functions say what they take, give and raise."""

from __future__ import annotations

import ast

from tests.structure.tree import FILES, MODULES, PACKAGES, definitions, exported, imports


def _faces() -> list[tuple[str, ast.FunctionDef]]:
    """(full name, function) of every function that a face, or the door, hands on."""
    found = []
    for package in {"onnxprune", *PACKAGES}:
        for i in imports(package):
            if i.module in FILES and i.name in exported(package):
                for node in definitions(i.module):
                    if node.name == i.name and isinstance(node, ast.FunctionDef):
                        found.append((f"{i.module}.{i.name}", node))
        found += [
            (f"{package}.{n.name}", n)
            for n in definitions(package)
            if n.name in exported(package) and isinstance(n, ast.FunctionDef)
        ]
    return found


def test_functions_of_faces_say_it_all() -> None:
    lacking = {}
    for name, function in _faces():
        doc = ast.get_docstring(function) or ""
        arguments = [a.arg for a in (*function.args.args, *function.args.kwonlyargs) if a.arg not in ("self", "cls")]
        raises = any(isinstance(n, ast.Raise) for n in ast.walk(function))
        returns = function.returns is not None and ast.unparse(function.returns) not in ("None", "Iterator[None]")
        gives = "Yields:" if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in ast.walk(function)) else "Returns:"
        parts = (("Args:", len(arguments) > 1), (gives, returns), ("Raises:", raises))
        wanted = [part for part, needed in parts if needed]
        if missing := [w for w in wanted if w not in doc]:
            lacking[name] = missing
    assert lacking == {}


def test_every_module_begins_with_a_sentence() -> None:
    for module in MODULES:
        first = (ast.get_docstring(ast.parse(FILES[module].read_text())) or "").partition("\n")[0]
        assert (first and first[0].isupper()) or first.startswith("`"), f"{module}: {first!r}"
