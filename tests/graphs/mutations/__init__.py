"""Damage that files come with: each mutation makes one from a valid model (and sometimes parts of another)."""

from tests.graphs.mutations import content, structure, sizes, attributes, depth  # noqa: F401, I001 the order of the numbers
from tests.graphs.mutations.registry import mutated, names

__all__ = ["mutated", "names"]
