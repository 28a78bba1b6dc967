"""Carry a decision out on a graph, and write it down."""

from onnxprune.rewriting.bypass import Bypass, BypassStep, blocks_of, bypassed, shortened
from onnxprune.rewriting.bypass_io import IoRename, with_fewer_io
from onnxprune.rewriting.compare import agreement, original_outputs
from onnxprune.rewriting.factorise import FactoriseStep
from onnxprune.rewriting.in_blocks import LEAST_BLOCK, Blocks, with_blocks
from onnxprune.rewriting.linear_groups import fibres, why_not_linear
from onnxprune.rewriting.mixed_units import cell_places, unit_places
from onnxprune.rewriting.plan import Plan
from onnxprune.rewriting.removal import Removal, carried_over, removed_classes
from onnxprune.rewriting.reorder import ReorderStep, why_fixed, with_order
from onnxprune.rewriting.rotate import RotateStep, rotatable_groups, with_rotation
from onnxprune.rewriting.zero import zeroed
from onnxprune.rewriting.zero_elements import (
    ZeroStep,
    check_zeros,
    sparse_bytes,
    stored_dense,
    stored_sparse,
    with_dense,
    with_zeros,
    written_back,
)

__all__ = [
    "Blocks",
    "Bypass",
    "BypassStep",
    "IoRename",
    "FactoriseStep",
    "LEAST_BLOCK",
    "Plan",
    "Removal",
    "ReorderStep",
    "RotateStep",
    "ZeroStep",
    "agreement",
    "cell_places",
    "fibres",
    "rotatable_groups",
    "why_not_linear",
    "with_rotation",
    "blocks_of",
    "carried_over",
    "original_outputs",
    "bypassed",
    "check_zeros",
    "removed_classes",
    "with_order",
    "sparse_bytes",
    "shortened",
    "stored_dense",
    "stored_sparse",
    "with_blocks",
    "with_dense",
    "with_fewer_io",
    "unit_places",
    "why_fixed",
    "with_zeros",
    "written_back",
    "zeroed",
]
