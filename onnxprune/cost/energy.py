"""Estimate the energy of a run, from its multiply-accumulates and the bytes that it moves.

Source: Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, figure 1.1.9: energy of an
operation in 45 nm at 0.9 V. Newer processors take less, and all take more for fetching and scheduling instructions: the
estimate compares models, and is no prediction for a machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import TensorProto

from onnxprune.cost.counts import contractions, of_trace
from onnxprune.model import Model, inlined
from onnxprune.model.flatten import flattened
from onnxprune.model.shapes.infer import infer
from onnxprune.model.tensors import item_bits
from onnxprune.tracing import Constraints, NodeView, Tracer, TraceResult, batch_size

# Picojoules of a multiplication and an addition, by the type of what is multiplied; whole numbers are added as int32.
FLOAT = 3.7 + 0.9
WHOLE = 0.2 + 0.1
PICOJOULES: Mapping[int, float] = {
    TensorProto.FLOAT16: 1.1 + 0.4,
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8), WHOLE),
}
# Picojoules of a byte from main memory: 1.3 nJ for 64 bits, the least of the range in the source.
PER_BYTE = 1300 / 8
# The operators between whole numbers and what they stand for: runtimes move the whole numbers.
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class EnergyEstimate:
    """What a run is expected to take.

    Attributes:
        macs: multiply-accumulates of a run, of all samples in it.
        moved: bytes: of the weights once, and of every activation once for who makes it and for each who reads it.
        computing: joules of the multiply-accumulates.
        moving: joules of the bytes, as if all came from main memory.
    """

    macs: int
    moved: int
    computing: float
    moving: float

    @property
    def joules(self) -> float:
        """Joules of a run."""
        return self.computing + self.moving


def estimate_energy(model: Model, sizes: Mapping[str, int] | None = None) -> EnergyEstimate:
    """Estimate what a run takes.

    Args:
        model: the model.
        sizes: numbers for symbolic dims, the batch among them.

    Returns:
        The estimate, for all samples of the run. Types that the source does not have count as float32.
    """
    flat = flattened(inlined(model))
    tracing, _ = Tracer(flat, infer(flat, sizes), Constraints()).run()
    cost, stored = of_trace(tracing, flat), _StoredAs(tracing)
    picojoules, batch = 0.0, batch_size(tracing)
    for layer, (view, _) in zip(cost.layers, contractions(tracing), strict=True):
        operand = next(iter(_activations(view)), view.node.input[0])
        dtype = tracing.static.dtypes.get(stored.read(operand), TensorProto.FLOAT)
        picojoules += layer.macs * batch * PICOJOULES.get(dtype, FLOAT)
    moved = cost.size + sum(stored.bytes_of(name) for name in _moved(tracing, stored))
    return EnergyEstimate(cost.macs * batch, moved, picojoules * 1e-12, moved * PER_BYTE * 1e-12)


class _StoredAs:
    """The tensors that stand in memory for those that nodes name: whole numbers for what they stand for."""

    def __init__(self, tracing: TraceResult) -> None:
        nodes = [view.node for view, _ in tracing.views]
        self._static = tracing.static
        self._dequantized = {node.output[0]: node.input[0] for node in nodes if node.op_type == DEQUANTIZE}
        self._quantized = {node.input[0]: node.output[0] for node in nodes if node.op_type == QUANTIZE}

    def read(self, name: str) -> str:
        """What is read where a node reads a tensor."""
        return self._dequantized.get(name, name)

    def written(self, name: str) -> str:
        """What is written where a node makes a tensor."""
        return self._quantized.get(name, name)

    def bytes_of(self, name: str) -> int:
        """Bytes of a tensor; none where its size is not known."""
        shape, dtype = self._static.shapes.get(name), self._static.dtypes.get(name, TensorProto.UNDEFINED)
        if shape is None or dtype in (TensorProto.UNDEFINED, TensorProto.STRING):
            return 0
        return -(-math.prod(shape) * item_bits(dtype) // 8)


def _moved(tracing: TraceResult, stored: _StoredAs) -> Iterator[str]:
    """The activations that nodes read and make."""
    for view, _ in tracing.views:
        read = _activations(view)
        if read and view.node.op_type not in (QUANTIZE, DEQUANTIZE):
            yield from map(stored.read, read)
            yield from map(stored.written, filter(None, view.node.output))


def _activations(view: NodeView) -> list[str]:
    """The inputs of a node that are not computed from weights alone."""
    return [name for slot, name in enumerate(view.node.input) if name and not view.constant[slot]]
