"""Damage that files come with: each mutation makes one from a valid model (and sometimes parts of another)."""

from tests.mutations import content, structure, sizes, attributes, depth  # noqa: F401, I001 the order of the numbers
from tests.mutations.registry import mutated, names

__all__ = ["mutated", "names"]
