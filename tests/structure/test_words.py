"""One name, one thing: no class and no public function is called like another."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.structure.allowed import SAME_NAME
from tests.structure.tree import MODULES, definitions, package_of


def test_no_name_twice() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for node in definitions(module):
            public = isinstance(node, ast.ClassDef) or package_of(module) not in ("cli", "criteria")
            # A command and a criterion are functions that are called like the verb or the criterion that they are.
            if public and not node.name.startswith("_"):
                homes[node.name].add(module)
    twice = {name: sorted(modules) for name, modules in homes.items() if len(modules) > 1}
    assert {n: m for n, m in twice.items() if n not in SAME_NAME} == {}
    assert sorted(set(SAME_NAME) - set(twice)) == [], "no longer twice: take them off the list"
