"""The quantisers of QONNX and Brevitas, which round floats and give floats."""

from __future__ import annotations

import numpy as np

from onnxprune.model.protos import QUANTIZING
from onnxprune.model.quantizers import QUANTIZERS, quantized
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.letters import through
from onnxprune.tracing.rules.node_view import Encoding, NodeView, Stored
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array


def quantizer(view: NodeView) -> list[Axes]:
    """Inputs tied position by position, broadcast from the right; the output is a float again."""

    def decode(stored: Stored) -> Array:
        given = {name: stored(slot) for slot, name in enumerate(view.inputs)}
        known = {name: value for name, value in given.items() if value is not None}
        return quantized(view.node, known) if len(known) == len(given) else known[view.inputs[0]]

    rank = len(view.out_shape())
    view.encodings[0] = Encoding(decode, lambda _: np.zeros((), np.float32), tuple(range(1, len(view.inputs))))
    letters = [range(rank - len(view.shape(slot)), rank) for slot in range(len(view.inputs))]
    return through(view, letters, [range(rank)])


for _domain in QUANTIZING:
    rule(*QUANTIZERS, domain=_domain)(quantizer)
