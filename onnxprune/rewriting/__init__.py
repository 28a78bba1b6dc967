"""Carry a decision out on a graph, and write it down."""

from onnxprune.rewriting.plan import Plan
from onnxprune.rewriting.removal import Removal, gone
from onnxprune.rewriting.zero import zeroed

__all__ = ["Removal", "Plan", "gone", "zeroed"]
