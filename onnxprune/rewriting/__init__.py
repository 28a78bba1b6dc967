"""Carry a decision out on a graph, and write it down."""

from onnxprune.rewriting.plan import Plan
from onnxprune.rewriting.removal import Cut, gone
from onnxprune.rewriting.zero import zeroed

__all__ = ["Cut", "Plan", "gone", "zeroed"]
