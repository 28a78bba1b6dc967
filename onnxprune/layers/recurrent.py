"""Recurrent layers (LSTM, GRU, RNN) as matrix products: the gates of a step read its input and the hidden units before.

Every gate is an activation of z = W x + R h + b, so all gates of a direction are one layer z = [x, h] M + b whose rows
are steps, M [inputs + hidden, gates * hidden]. Directions are called ways: each has weights of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.tracing import NodeView
from onnxprune.typing import Array

# What multiplies its inputs with one weight, and what it made before with another.
RECURRENT = ("LSTM", "GRU", "RNN")
_REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class RecurrentLayer:
    """A node that multiplies what enters, and the hidden units that it made before, with stored weights.

    Attributes:
        node: the node.
        reversed: of every way, whether it reads the steps from the last one on.
    """

    INPUT = 1
    RECURRENCE = 2
    BIAS = 3

    node: onnx.NodeProto
    reversed: tuple[bool, ...]

    def matrix(self, w: Array, r: Array) -> Array:
        """The weights of the input and of the recurrence as one matrix, [ways, inputs + hidden, gates * hidden]."""
        return np.concatenate([w, r], axis=2).transpose(0, 2, 1)

    @property
    def weights(self) -> list[str]:
        """The names of the weights of the input and of the recurrence, and of the bias if there is one."""
        return [name for name in self.node.input[1:4] if name]

    def input_rows(self, x: Array) -> Array:
        """What enters as float32[steps * batch, inputs]."""
        return x.reshape(-1, x.shape[-1]).astype(np.float32)

    def output_rows(self, y: Array) -> Array:
        """The hidden units behind every step, of the first output of the node: [ways, steps * batch, hidden]."""
        return y.transpose(1, 0, 2, 3).reshape(len(self.reversed), -1, y.shape[-1])

    def states_before(self, y: Array, first: Array | None = None) -> Array:
        """The hidden units before every step: [ways, steps * batch, hidden].

        Args:
            y: the first output of the node.
            first: the initial state that it was given; zeros where None.
        """
        steps = y.transpose(1, 0, 2, 3)
        start = np.zeros((len(steps), *steps.shape[2:]), y.dtype) if first is None else first
        ways = [
            np.concatenate([own[1:], one[None]] if backwards else [one[None], own[:-1]])
            for own, one, backwards in zip(steps, start, self.reversed, strict=True)
        ]
        return np.stack(ways).reshape(len(steps), -1, y.shape[-1])


def recurrent_layer(view: NodeView, node: onnx.NodeProto | None = None) -> RecurrentLayer | None:
    """View a traced node as a recurrent layer with stored float weights.

    Args:
        view: the traced node.
        node: its pruned form, which is viewed instead.

    Returns:
        The layer; None where the node is none, or what enters is constant, or the batch is its first axis, which the
        runtime does not take.
    """
    slots = (RecurrentLayer.INPUT, RecurrentLayer.RECURRENCE)
    if view.node.op_type not in RECURRENT or view.node.domain not in ("", "ai.onnx"):
        return None
    if view.constant[0] or view.attrs.get("layout", 0):
        return None
    if not all(view.has(slot) and view.is_weight(slot) for slot in slots):
        return None
    direction = _REVERSED[view.attrs.get("direction", "forward")]
    return RecurrentLayer(node or view.node, direction)
