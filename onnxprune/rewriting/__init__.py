"""Carry a decision out on a graph, and write it down."""

from onnxprune.rewriting.compare import agreement
from onnxprune.rewriting.plan import Plan
from onnxprune.rewriting.removal import Removal, removed_classes
from onnxprune.rewriting.zero import zeroed
from onnxprune.rewriting.zero_elements import (
    ZeroStep,
    check_zeros,
    sparse_bytes,
    stored_sparse,
    with_dense,
    with_zeros,
    written_back,
)

__all__ = [
    "Plan",
    "Removal",
    "ZeroStep",
    "agreement",
    "check_zeros",
    "removed_classes",
    "sparse_bytes",
    "stored_sparse",
    "with_dense",
    "with_zeros",
    "written_back",
    "zeroed",
]
