"""Files, functions, parameter lists and calls that can be read at once."""

from __future__ import annotations

import ast
import functools

import pytest

from tests.structure.allowed import LONG_CODE, LONG_FILES, MANY_PARAMETERS
from tests.structure.tree import FILES, MODULES, functions, tree

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
LONGEST_CODE = 50
PARAMETERS = 6
POSITIONAL = 5


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_can_be_read_at_once(module: str) -> None:
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONG_FILES.get(module, LONGEST_FILE), f"{module} has {lines} lines"
    long = {
        f"{f.name} ({n} lines)"
        for f in functions(module)
        if (n := (f.end_lineno or 0) - f.lineno + 1) > LONGEST_FUNCTION
    }
    assert not long, f"{module}: {', '.join(sorted(long))}"
    dense = {
        f"{f.name} ({n} lines of code)"
        for f in functions(module)
        if (n := _code(module, f)) > LONG_CODE.get(f"{module}.{f.name}", LONGEST_CODE)
    }
    assert not dense, f"{module}: {', '.join(sorted(dense))}"


def _code(module: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and blank lines."""
    rows = FILES[module].read_text(encoding="utf-8").splitlines()[function.lineno - 1 : function.end_lineno]
    first = function.body[0]
    doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return sum(bool(row.strip()) for row in rows) - ((first.end_lineno or 0) - first.lineno + 1 if doc else 0)


def test_few_parameters() -> None:
    many = {}
    for module in MODULES:
        for f in functions(module):
            a = f.args
            count = sum(p.arg not in ("self", "cls") for p in (*a.posonlyargs, *a.args, *a.kwonlyargs))
            if count > PARAMETERS:
                many[f"{module}.{f.name}"] = count
    assert {n: c for n, c in many.items() if c > MANY_PARAMETERS.get(n, PARAMETERS)} == {}
    assert sorted(set(MANY_PARAMETERS) - set(many)) == [], "no longer long: take them off the list"


def test_few_positional_arguments() -> None:
    many: dict[str, int] = {}
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and len(node.args) > POSITIONAL and not _takes_any_number(node):
                callee = ast.unparse(node.func)
                many[f"{module}:{node.lineno}: {callee}"] = len(node.args)
    assert many == {}


# Functions of other libraries that take any number of arguments of one kind.
ANY_NUMBER = {"itertools.chain", "chain", "frozenset().union", "set().union", "Path", "os.path.join"}


@functools.cache
def _variadic() -> frozenset[str]:
    """The functions of the package that take any number of arguments of one kind: operators, slots, field names."""
    return frozenset(f.name for module in MODULES for f in functions(module) if f.args.vararg)


def _takes_any_number(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ANY_NUMBER or ast.unparse(call.func).rpartition(".")[2] in _variadic()


def test_limits_that_are_allowed_are_needed() -> None:
    lengths = {m: len(FILES[m].read_text(encoding="utf-8").splitlines()) for m in LONG_FILES}
    assert {m: n for m, n in lengths.items() if n <= LONGEST_FILE} == {}, "short again: take them off the list"
    dense = {f"{m}.{f.name}": _code(m, f) for m in MODULES for f in functions(m)}
    assert {n for n in LONG_CODE if dense.get(n, 0) <= LONGEST_CODE} == set(), "short again: take them off the list"
