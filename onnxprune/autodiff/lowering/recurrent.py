"""LSTM, GRU and RNN unrolled over the steps of the sequence.

The equations are those of the operators' definitions in ONNX; a sequence of known length needs no loop, so ordinary
rules differentiate it. The products with the input of all steps are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import lowering

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_PLAIN = frozenset(("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"))
# Activation -> (attribute, its default) for what `activation_alpha` and `activation_beta` give.
_PARAMETERS: Mapping[str, Sequence[tuple[str, float]]] = {
    "LeakyRelu": (("alpha", 0.01),),
    "ThresholdedRelu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
    "Elu": (("alpha", 1.0),),
    "Affine": (("alpha", 1.0), ("beta", 0.0)),
    "ScaledTanh": (("alpha", 1.0), ("beta", 1.0)),
}

State = tuple[Value, ...]
Activation = Callable[[Value], Value]


@dataclass(frozen=True, eq=False)
class Cell:
    """One direction of a recurrent layer.

    Attributes:
        operator: LSTM, GRU or RNN.
        recurrence: weights of the recurrence, [hidden, gates * hidden].
        bias: of the recurrence, [gates * hidden]; None for none.
        peephole: weights of LSTM's peepholes for input, output and forget gate, [hidden] each; empty for none.
        activations: of the gates, in the order of the definition.
        options: attributes of the node.
    """

    operator: str
    recurrence: Value
    bias: Value | None
    peephole: Sequence[Value]
    activations: Sequence[Activation]
    options: Mapping[str, Any]

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return self.recurrence.shape[0]

    def step(self, x: Value, state: State) -> State:
        """Advance the state by one step; `x` is the product with the input, [batch, gates * hidden]."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.operator](x, state)

    def _parts(self, value: Value) -> list[Value]:
        """The gates of a product."""
        return value.split(1, [self.hidden] * (value.shape[1] // self.hidden))

    @cached_property
    def _gates_and_candidate(self) -> tuple[list[Value], list[Value | None]]:
        """Weights and biases of a GRU's two gates and of its candidate."""
        sizes = [2 * self.hidden, self.hidden]
        bias: list[Value | None] = [None, None]
        if self.bias is not None:
            bias = [*self.bias.split(0, sizes)]
        return self.recurrence.split(1, sizes), bias

    def _clipped(self, value: Value) -> Value:
        limit = self.options.get("clip")
        if not limit:
            return value
        bounds = value.like(-limit), value.like(limit)
        return value.graph.op("Clip", value, *bounds, shape=value.shape)

    def _lstm(self, x: Value, state: State) -> State:
        h, c = state
        f, g, final = self.activations
        gates = x + h @ self.recurrence
        peep = self.peephole or None
        i, o, forget, cell = self._parts(gates)
        i = f(self._clipped(i + c * peep[0] if peep else i))
        forget = (
            1.0 - i if self.options.get("input_forget") else f(self._clipped(forget + c * peep[2] if peep else forget))
        )
        c = forget * c + i * g(self._clipped(cell))
        o = f(self._clipped(o + c * peep[1] if peep else o))
        return o * final(c), c

    def _gru(self, x: Value, state: State) -> State:
        (h,) = state
        f, g = self.activations
        (gates, candidate), (shift, bias) = self._gates_and_candidate
        both = h @ gates
        if shift is not None:
            both = both + shift
        (x_update, x_reset, x_new), (h_update, h_reset) = self._parts(x), self._parts(both)
        update = f(self._clipped(x_update + h_update))
        reset = f(self._clipped(x_reset + h_reset))
        if self.options.get("linear_before_reset"):
            inner = h @ candidate
            inner = reset * (inner if bias is None else inner + bias)
        else:
            inner = (reset * h) @ candidate
            inner = inner if bias is None else inner + bias
        new = g(self._clipped(x_new + inner))
        return ((1.0 - update) * new + update * h,)

    def _rnn(self, x: Value, state: State) -> State:
        (f,) = self.activations
        return (f(self._clipped(x + state[0] @ self.recurrence)),)


@lowering("LSTM", "GRU", "RNN")
def _recurrent(
    graph: GraphBuilder, node: onnx.NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value | None]
) -> Sequence[Value | None] | None:
    """Unroll a recurrent layer; None where an activation is not known."""
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    given = [*inputs, *[None] * (8 - len(inputs))]
    x, weight, recurrence = given[:3]
    assert x is not None and weight is not None and recurrence is not None
    directions = weight.shape[0]
    activations = _activations(node.op_type, options, directions)
    if activations is None:
        return None
    batch_first = bool(options.get("layout"))
    x = x.transpose([1, 0, 2]) if batch_first else x
    lasts: list[State] = []
    sequences = []
    for d in range(directions):
        backwards = options.get("direction", b"forward") == b"reverse" or d == 1
        cell, projected = _direction(x, given, d, activations=activations[d], operator=node.op_type, options=options)
        initial = _initial(cell, given, d, x, batch_first=batch_first)
        steps, last = _unroll(cell, projected, initial, given[4], backwards=backwards)
        sequences.append(steps)
        lasts.append(last)
    return _laid_out(graph, sequences, lasts, batch_first)


def _activations(operator: str, options: Mapping[str, Any], directions: int) -> list[list[Activation]] | None:
    count = len(_DEFAULTS[operator])
    names = [n.decode() for n in options.get("activations", ())] or _DEFAULTS[operator] * directions
    alphas, betas = list(options.get("activation_alpha", ())), list(options.get("activation_beta", ()))
    made: list[Activation] = []
    for name in names:
        values = dict(_PARAMETERS.get(name, ()))
        for key, source in (("alpha", alphas), ("beta", betas)):
            if key in values and source:
                values[key] = source.pop(0)
        if name not in _PLAIN and name not in _PARAMETERS:
            return None
        made.append(_activation(name, values))
    return [made[d * count : (d + 1) * count] for d in range(directions)]


def _activation(name: str, values: Mapping[str, float]) -> Activation:
    numbers = {k: float(v) for k, v in values.items()}
    if name == "Affine":
        return lambda value: value * numbers["alpha"] + numbers["beta"]
    if name == "ScaledTanh":
        return lambda value: (value * numbers["beta"]).map("Tanh") * numbers["alpha"]
    return lambda value: value.map(name, **numbers)


def _direction(
    x: Value,
    given: Sequence[Value | None],
    direction: int,
    *,
    activations: Sequence[Activation],
    operator: str,
    options: Mapping[str, Any],
) -> tuple[Cell, Value]:
    """The cell of a direction, and the products of the input with its weights, [steps, batch, gates * hidden]."""

    def own(value: Value) -> Value:
        return value.slice(0, direction, direction + 1).reshape(value.shape[1:])

    weight, recurrence, bias, holes = given[1], given[2], given[3], given[7]
    assert weight is not None and recurrence is not None
    width = _GATES[operator] * recurrence.shape[2]
    projected = x @ own(weight).mT
    inner = None
    if bias is not None:
        mine = own(bias)
        projected = projected + mine.slice(0, 0, width)
        inner = mine.slice(0, width, 2 * width)
        if operator != "GRU":  # in a GRU the reset gate stands between this bias and the sum
            projected, inner = projected + inner, None
    hidden = recurrence.shape[2]
    peephole = [own(holes).slice(0, k * hidden, (k + 1) * hidden) for k in range(3)] if holes is not None else []
    cell = Cell(
        operator=operator,
        recurrence=own(recurrence).mT,
        bias=inner,
        peephole=peephole,
        activations=activations,
        options=options,
    )
    return cell, projected


def _initial(cell: Cell, given: Sequence[Value | None], direction: int, x: Value, *, batch_first: bool) -> State:
    """The state before the first step: what is given, or zeros."""
    batch = x.shape[1]
    state = []
    for slot in (5, 6) if cell.operator == "LSTM" else (5,):
        value = given[slot]
        if value is None:
            state.append(x.graph.constant(np.zeros((batch, cell.hidden), x.dtype)))
        else:
            axis = 1 if batch_first else 0
            state.append(value.slice(axis, direction, direction + 1).reshape([batch, cell.hidden]))
    return tuple(state)


def _unroll(
    cell: Cell, projected: Value, state: State, lengths: Value | None, *, backwards: bool
) -> tuple[list[Value], State]:
    """Run all steps; sequences that have ended keep their state and give zeros."""
    steps, batch, width = projected.shape
    rows = projected.split(0, [1] * steps)
    outputs: list[Value | None] = [None] * steps
    for t in reversed(range(steps)) if backwards else range(steps):
        new = cell.step(rows[t].reshape([batch, width]), state)
        if lengths is not None:
            alive = lengths.compare("Greater", t).reshape([batch, 1])
            zero = new[0].like(0.0)
            outputs[t] = alive.where(new[0], zero)
            state = tuple(alive.where(n, o) for n, o in zip(new, state, strict=True))
        else:
            outputs[t], state = new[0], new
    return [o for o in outputs if o is not None], state


def _laid_out(
    graph: GraphBuilder, sequences: Sequence[Sequence[Value]], lasts: Sequence[State], batch_first: bool
) -> list[Value | None]:
    """Outputs as the operators give them: [steps, directions, batch, hidden], or batch first."""
    batch, hidden = lasts[0][0].shape
    steps = len(sequences[0])
    parts = [graph.concat([o.reshape([1, 1, batch, hidden]) for o in sequence], 0) for sequence in sequences]
    y = graph.concat(parts, 1)
    ends = [graph.concat([last[i].reshape([1, batch, hidden]) for last in lasts], 0) for i in range(len(lasts[0]))]
    if batch_first:
        y = y.transpose([2, 0, 1, 3])
        ends = [end.transpose([1, 0, 2]) for end in ends]
    assert y.shape[1 if batch_first else 0] == steps
    return [y, *ends]
