"""Weights of a few bits: MatMulNBits in place of MatMul, rounded to the nearest numbers block by block."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model import Model, Names
from onnxprune.model.graph import remove_dead
from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.rules.blockwise import packed
from onnxprune.typing import Array

# Least sizes of a block of the kernel, which are powers of two.
LEAST_BLOCK = 16


@dataclass(frozen=True)
class Blocks:
    """How weights are stored.

    Attributes:
        bits: of a number: 2, 4 or 8.
        size: inputs of an output that share a scale; a power of two, 16 or more.
        symmetric: zero is the middle of the numbers; otherwise every block has a zero point.
    """

    bits: int = 4
    size: int = 32
    symmetric: bool = False

    def rounded(self, weight: Array) -> tuple[Array, Array, Array]:
        """Round a weight to the nearest numbers.

        Args:
            weight: [inputs, outputs].

        Returns:
            The numbers, uint8[outputs, blocks, size]; scales and zero points, [outputs, blocks].
        """
        width, outputs = weight.shape
        count, top = -(-width // self.size), 2**self.bits - 1
        wide = np.zeros((outputs, count * self.size), np.float64)
        wide[:, :width] = weight.T
        parts = wide.reshape(outputs, count, self.size)
        if self.symmetric:
            middle = 2.0 ** (self.bits - 1)
            scale, zero = np.abs(parts).max(axis=2) / max(middle - 1, 1), np.full(parts.shape[:2], middle)
        else:
            low, high = np.minimum(parts.min(axis=2), 0), np.maximum(parts.max(axis=2), 0)
            scale = (high - low) / top
            zero = np.round(np.divide(-low, scale, out=np.zeros_like(low), where=scale > 0))
        scale = np.where(scale > 0, scale, 1.0)
        numbers = np.clip(np.round(parts / scale[..., None]) + zero[..., None], 0, top)
        return numbers.astype(np.uint8), scale, zero.astype(np.uint8)


def with_blocks(model: Model, names: Collection[str], blocks: Blocks) -> Model:
    """Store weights of matrix products in blocks.

    Args:
        model: the model.
        names: the nodes; each is a MatMul whose second input is a stored matrix.
        blocks: how.

    Returns:
        A model whose weights are rounded.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    unique = Names(proto.graph).unique
    for node in proto.graph.node:
        if node.name not in names:
            continue
        weight = model.array(node.input[1])
        numbers, scale, zero = blocks.rounded(weight)
        stored = {"packed": packed(numbers, blocks.bits), "scales": scale.astype(weight.dtype)}
        if not blocks.symmetric:
            stored["zero_points"] = packed(zero, blocks.bits)
        given = {unique(f"{node.input[1]}_{role}"): value for role, value in stored.items()}
        proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in given.items())
        sizes = {"K": len(weight), "N": weight.shape[1], "bits": blocks.bits, "block_size": blocks.size}
        inputs = [node.input[0], *given]
        node.CopyFrom(helper.make_node("MatMulNBits", inputs, node.output, name=node.name, domain=MICROSOFT, **sizes))
    if MICROSOFT not in (opset.domain for opset in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    remove_dead(proto.graph)
    return replace(model, proto=proto)
