"""Means that are written as sums: a sum over C positions and a division by C, in either order.

A mean over what remains divides by what remains. So the node that sums is a mean (`through(averages=...)`) wherever
everything that becomes of its result is divided by the number of positions, and after a cut its sum is scaled by old
count / new count: whatever divides it, a constant or a size that the graph computes, stays as it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from onnxprune.model.graph import first_output
from onnxprune.model.traits import traits_of
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters
from onnxprune.tracing.rules.node_view import Average, Letter, NodeView

# How far a factor may be from one over the count: 1/C in half precision.
ROUNDING = 1e-3
# Nodes that are looked at between a sum and its division.
FARTHEST = 16
# Exponent of s in the result for s times the numbers, and for s times as many of them; 1 if not listed.
_BY_SCALE = {"ReduceSumSquare": 2.0}
_BY_COUNT = {"ReduceL2": 0.5}


@dataclass(frozen=True)
class _Sum:
    """A result that grows with the number of positions summed over.

    Attributes:
        gain: what the sum has been multiplied by.
        power: for s times as many positions of equal value, the result is s ** power times as large.
    """

    gain: float
    power: float

    def average(self, sizes: Sequence[int]) -> Average | None:
        """What it is a mean over: axes of these sizes, or some of them; one position fewer for a sample variance."""
        for count in range(len(sizes), 0, -1):
            for axes in itertools.combinations(range(len(sizes)), count):
                total = math.prod(sizes[a] for a in axes)
                for less in (0, 1):
                    mean = abs(self.gain) * (total - less) ** self.power
                    if total > 2 and math.isclose(mean, 1, rel_tol=ROUNDING):
                        return Average(axes=axes, less=less)
        return None


def average_of(view: NodeView, slot: int, axes: Sequence[int], gain: float = 1.0) -> Average | None:
    """Which of the `axes` a node averages over, where it sums over all of them; None if it is a sum.

    Args:
        view: the node.
        slot: the input that is summed.
        axes: its axes that are summed over.
        gain: what the sum is multiplied by in the node itself.
    """
    known = [a for a in axes if isinstance(view.dims(view.node.input[slot])[a], int) and view.shape(slot)[a] > 1]
    if not known or view.constant[slot]:
        return None
    op = view.node.op_type
    sizes = [view.shape(slot)[a] for a in known]
    for before in _gains_before(view, view.node.input[slot]):
        total = _Sum(gain * before ** _BY_SCALE.get(op, 1.0), _BY_COUNT.get(op, 1.0))
        found = total.average(sizes) or _behind(view, first_output(view.node), total, sizes)
        if found is not None:
            return replace(found, slot=slot, axes=tuple(known[a] for a in found.axes), power=total.power)
    return None


def averaged_letters(view: NodeView, inputs: Sequence[Letters], output: Letters, gain: float = 1.0) -> list[Letter]:
    """The letters that a contraction averages over: one factor is a constant of equal entries, 1/C in all.

    Args:
        view: a sum of products of two factors.
        inputs: the letters of both.
        output: those of the result.
        gain: what the products are multiplied by.
    """
    for weight, data in ((1, 0), (0, 1)) if len(inputs) == 2 else ():
        filler = view.state.filler(view.node.input[weight])
        axes = [a for a, letter in enumerate(inputs[data]) if letter not in output and letter in inputs[weight]]
        found = average_of(view, data, axes, gain * filler) if filler is not None else None
        if found is not None:
            view.average = replace(found, weight=weight)
            return [inputs[data][a] for a in found.axes]
    return []


def resize_count(edit: Edit) -> None:
    """What a mean sums over is scaled by old count / new count."""
    average = edit.view.average
    if average is None:
        return
    old, new = edit.view.shape(average.slot), edit.new_in[average.slot] or ()
    counts = [math.prod(sizes[a] for a in average.axes) for sizes in (old, new)]
    if counts[0] == counts[1]:
        return
    before, after = (max(count - average.less, 1) for count in counts)
    dtype = helper.tensor_dtype_to_np_dtype(edit.view.static.dtypes[edit.view.node.input[average.slot]])
    factor = np.asarray((before / after) ** average.power, dtype)
    if average.weight is None:
        edit.multiply_output(factor)
    else:  # a bias may have been added to the output, or a function applied to it
        edit.multiply_input(average.slot, factor)


# --- what becomes of a sum ---------------------------------------------------------------------------------


def _gains_before(view: NodeView, tensor: str) -> Iterator[float]:
    """What all elements of a tensor have been multiplied by: nothing, by the last node, by the last two, ..."""
    gain = 1.0
    yield gain
    for _ in range(FARTHEST):
        node = view.state.producer(tensor)
        if node is None:
            return
        slot, factor = _scaled_by(view, node)
        if factor is None:
            return
        tensor = node.input[slot]
        if factor != 1:
            gain *= factor
            yield gain


def _behind(view: NodeView, tensor: str, total: _Sum, sizes: Sequence[int]) -> Average | None:
    """What a sum becomes a mean over wherever it is read; None if it is read as a sum, or as several means."""
    found: set[Average] = set()
    pending = [(tensor, total)]
    for _ in range(FARTHEST):
        if not pending:
            return found.pop() if len(found) == 1 else None
        name, here = pending.pop()
        consumers = view.state.consumers(name)
        if view.state.is_output(name) or not consumers:
            return None
        for node in consumers:
            after = _after(view, node, name, here)
            if after is None:
                return None
            average = after.average(sizes)
            if average is None:
                pending.append((first_output(node), after))
            else:
                found.add(average)
    return None


def _after(view: NodeView, node: onnx.NodeProto, tensor: str, here: _Sum) -> _Sum | None:
    """The sum after a node that multiplies it by a constant, moves it or takes its root; None after any other."""
    if node.op_type == "Sqrt" and not node.domain and here.gain > 0:
        return _Sum(math.sqrt(here.gain), here.power / 2)
    slot, factor = _scaled_by(view, node)
    if factor is None or node.input[slot] != tensor or list(node.input).count(tensor) > 1:
        return None
    return _Sum(here.gain * factor, here.power)


def _scaled_by(view: NodeView, node: onnx.NodeProto) -> tuple[int, float | None]:
    """(input, what all its elements are multiplied by) of a node; None for a node that does anything else to it."""
    row = traits_of(node)
    if node.op_type in ("Mul", "Div") and not node.domain:
        fillers = [view.state.filler(name) for name in node.input]
        if node.op_type == "Mul" and fillers[0] is not None:
            return 1, fillers[0]
        if fillers[1] is None or not fillers[1]:
            return 0, None
        return 0, fillers[1] if node.op_type == "Mul" else 1 / fillers[1]
    return 0, 1.0 if len(node.output) == 1 and (row.moves or row.retypes) else None
