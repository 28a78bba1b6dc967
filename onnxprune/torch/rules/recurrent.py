"""LSTM, GRU and RNN step by step, by the equations of the operators' definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.errors import ModelError
from onnxprune.torch.registry import Operation, filled, translates

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# Activation -> (names and defaults of its parameters, function).
_ACTIVATIONS: Mapping[str, tuple[tuple[float, ...], Callable[..., Any]]] = {
    "Relu": ((), torch.relu),
    "Tanh": ((), torch.tanh),
    "Sigmoid": ((), torch.sigmoid),
    "Softsign": ((), F.softsign),
    "Softplus": ((), F.softplus),
    "LeakyRelu": ((0.01,), F.leaky_relu),
    "ThresholdedRelu": ((1.0,), lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x))),
    "Elu": ((1.0,), F.elu),
    "HardSigmoid": ((0.2, 0.5), lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1)),
    "ScaledTanh": ((1.0, 1.0), lambda x, alpha, beta: alpha * torch.tanh(beta * x)),
    "Affine": ((1.0, 0.0), lambda x, alpha, beta: alpha * x + beta),
}

State = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction of a recurrent layer.

    Attributes:
        operation: the node.
        recurrence: weights of the recurrence, [gates * hidden, hidden].
        bias: of the recurrence, [gates * hidden]; None for none.
        peepholes: weights of LSTM's peepholes for input, output and forget gate; empty for none.
        activations: of the gates, in the order of the definition.
    """

    operation: Operation
    recurrence: Any
    bias: Any
    peepholes: Sequence[Any]
    activations: Sequence[Callable[[Any], Any]]

    def step(self, x: Any, state: State) -> State:
        """Advance the state; `x` is the product with the input, [batch, gates * hidden]."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.operation.kind](x, state)

    def _clipped(self, x: Any) -> Any:
        limit = self.operation.get("clip")
        return torch.clamp(x, -limit, limit) if limit else x

    def _lstm(self, x: Any, state: State) -> State:
        h, c = state
        f, g, final = self.activations
        i, o, forget, cell = F.linear(h, self.recurrence, self.bias).add(x).chunk(4, -1)
        p = self.peepholes
        i = f(self._clipped(i + c * p[0] if p else i))
        forget = 1 - i if self.operation.get("input_forget") else f(self._clipped(forget + c * p[2] if p else forget))
        c = forget * c + i * g(self._clipped(cell))
        o = f(self._clipped(o + c * p[1] if p else o))
        return o * final(c), c

    def _gru(self, x: Any, state: State) -> State:
        (h,) = state
        f, g = self.activations
        hidden = h.shape[-1]
        gates, candidate = self.recurrence[: 2 * hidden], self.recurrence[2 * hidden :]
        bias, last = (None, None) if self.bias is None else (self.bias[: 2 * hidden], self.bias[2 * hidden :])
        update, reset = f(self._clipped(F.linear(h, gates, bias) + x[:, : 2 * hidden])).chunk(2, -1)
        if self.operation.get("linear_before_reset"):
            inner = reset * F.linear(h, candidate, last)
        else:
            inner = F.linear(reset * h, candidate, last)
        new = g(self._clipped(x[:, 2 * hidden :] + inner))
        return ((1 - update) * new + update * h,)

    def _rnn(self, x: Any, state: State) -> State:
        return (self.activations[0](self._clipped(F.linear(state[0], self.recurrence, self.bias) + x)),)


@translates("LSTM", "GRU", "RNN")
def _recurrent(operation: Operation, *inputs: Any) -> list[Any]:
    x, weight, recurrence, bias, lengths, h, c, peepholes = filled(inputs, 8)
    batch_first = bool(operation.get("layout"))
    x = x.transpose(0, 1) if batch_first else x
    activations = _activations(operation, weight.shape[0])
    sequences, lasts = [], []
    for d in range(weight.shape[0]):
        own = (None, None) if bias is None else bias[d].chunk(2)
        cell = Direction(
            operation=operation,
            recurrence=recurrence[d],
            bias=own[1],
            peepholes=[] if peepholes is None else peepholes[d].chunk(3),
            activations=activations[d],
        )
        state = [
            torch.zeros(x.shape[1], recurrence.shape[-1], dtype=x.dtype, device=x.device)
            if initial is None
            else initial.select(1 if batch_first else 0, d)
            for initial in ((h, c) if operation.kind == "LSTM" else (h,))
        ]
        backwards = operation.get("direction", "forward") == "reverse" or d == 1
        outputs, last = _unrolled(cell, F.linear(x, weight[d], own[0]), tuple(state), lengths, backwards=backwards)
        sequences.append(outputs)
        lasts.append(last)
    y = torch.stack(sequences, 1)
    ends = [torch.stack(parts) for parts in zip(*lasts, strict=True)]
    if batch_first:
        return [y.permute(2, 0, 1, 3), *(end.transpose(0, 1) for end in ends)]
    return [y, *ends]


def _unrolled(cell: Direction, projected: Any, state: State, lengths: Any, *, backwards: bool) -> tuple[Any, State]:
    """Run all steps; sequences that have ended keep their state and give zeros."""
    steps = len(projected)
    outputs: list[Any] = [None] * steps
    for t in reversed(range(steps)) if backwards else range(steps):
        new = cell.step(projected[t], state)
        if lengths is None:
            outputs[t], state = new[0], new
        else:
            alive = (lengths > t).reshape(-1, 1)
            outputs[t] = torch.where(alive, new[0], torch.zeros_like(new[0]))
            state = tuple(torch.where(alive, n, o) for n, o in zip(new, state, strict=True))
    return torch.stack(outputs), state


def _activations(operation: Operation, directions: int) -> list[list[Callable[[Any], Any]]]:
    defaults = _DEFAULTS[operation.kind]
    names = operation.get("activations") or defaults * directions
    sources = [list(operation.get("activation_alpha") or ()), list(operation.get("activation_beta") or ())]
    made = []
    for name in names:
        if name not in _ACTIVATIONS:
            raise ModelError(f"no rule says how PyTorch computes the activation {name!r} of node {operation.name!r}")
        parameters, function = _ACTIVATIONS[name]
        values = [source.pop(0) if source else default for default, source in zip(parameters, sources, strict=False)]
        made.append(_with_parameters(function, values))
    return [made[d * len(defaults) : (d + 1) * len(defaults)] for d in range(directions)]


def _with_parameters(function: Callable[..., Any], values: Sequence[float]) -> Callable[[Any], Any]:
    return lambda x: function(x, *values)
