"""Spectra of windows of a signal, as reads and one product."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, leading, lowering, optional, settings_of
from onnxprune.autodiff.vjp.signal import fourier_matrix


@lowering("STFT")
def _stft(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    """Windows of the signal, each with its spectrum."""
    signal, step, window, length = leading(inputs), inputs[1], optional(inputs, 2), optional(inputs, 3)
    result, onesided = leading(outputs), bool(settings_of(node).get("onesided", 1))
    assert step is not None
    known = None if length is None else length.constant
    if step.constant is None or (length is not None and known is None):
        return None
    size = int(known.reshape(-1)[0]) if known is not None else (window.size if window is not None else signal.shape[1])
    batch, frames, bins, _ = result.shape
    starts = np.arange(frames) * int(step.constant.reshape(-1)[0])
    index = graph.constant((starts[:, None] + np.arange(size)).astype(np.int64))
    parts = signal.shape[2] if signal.rank == 3 else 1
    flat = signal.reshape([batch, signal.shape[1], parts])
    cut = graph.op("Gather", flat, index, shape=[batch, frames, size, parts], axis=1)
    if window is not None:
        cut = cut * window.reshape([size, 1])
    matrix = fourier_matrix((size, parts, bins, 2), None, inverse=False, onesided=onesided)
    rows = cut.reshape([batch, frames, size * parts]) @ graph.constant(matrix.astype(signal.dtype))
    return [rows.reshape(result.shape)]
