"""Recurrent layers: hidden units go from all gates, from the recurrence and from what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Copies, Letters, through
from onnxprune.tracing.rules.node_view import Encoding, NodeView, Stored
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
PEEPHOLES = 3
STATES = (5, 6)
TIME = "time axis of a recurrence"
DIRECTION = "direction of a recurrence"


def _is_given(view: NodeView, slot: int) -> bool:
    """Whether an input says anything: states of zeros, which exporters make for many layers at once, do not."""
    return view.has(slot) and not (slot in STATES and view.state.is_zero(view.node.input[slot]))


def _resize_hidden_size(edit: Edit, before: int = 2) -> None:
    """`hidden_size` becomes the number of hidden units that remain; states of zeros are left out."""
    for slot in STATES:
        if edit.view.has(slot) and not _is_given(edit.view, slot):
            edit.node.input[slot] = ""
    if "hidden_size" in edit.view.attrs:
        edit.set_attribute("hidden_size", int(edit.kept(2, before).sum()))


def _input_contraction(view: NodeView) -> list[tuple[int | None, int]]:
    return [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def _state_contraction(view: NodeView) -> list[tuple[int | None, int]]:
    return [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]


@rule(*GATES, resize=_resize_hidden_size, contractions=lambda s: [_input_contraction(s), _state_contraction(s)])
def recurrent(view: NodeView) -> list[Axes]:
    """Inputs contracted, hidden units made and contracted again; a unit goes with its gates, per direction."""
    gates = GATES[view.node.op_type]
    batch_first = bool(view.attrs.get("layout", 0))
    state: Letters = ("n", "d", "h") if batch_first else ("d", "n", "h")
    given: list[Letters] = [
        ("n", "s", "i") if batch_first else ("s", "n", "i"),
        ("d", Copies("h", gates), "i"),
        ("d", Copies("h", gates), "h before"),
        ("d", Copies("h", 2 * gates)),
        ("n",),
        state,
        state,
        ("d", Copies("h", PEEPHOLES)),
    ]
    inputs = [letters if _is_given(view, slot) else None for slot, letters in enumerate(given)]
    _part_directions(view, inputs, 2)
    outputs: list[Letters] = [("n", "s", "d", "h") if batch_first else ("s", "d", "n", "h"), state, state]
    return through(
        view,
        inputs,
        outputs[: len(view.node.output)],
        fixes={"s": TIME},
        inherent={"d": DIRECTION},
        same={"h before": "h"},
    )


def _resize_quantized(edit: Edit) -> None:
    _resize_hidden_size(edit, before=1)


@rule(
    "DynamicQuantizeLSTM",
    domain=MICROSOFT,
    resize=_resize_quantized,
    contractions=lambda s: [_input_contraction(s), _state_contraction(s)],
)
def quantized_lstm(view: NodeView) -> list[Axes]:
    """As `LSTM`, with W and R the other way round; the range of what is read, by which it is quantised, changes."""
    gates, state = GATES["LSTM"], ("d", "n", "h")
    scale: list[Letters] = [("d", Copies("h", gates)) if len(view.shape(s)) > 1 else ("d",) for s in (8, 9, 10, 11)]
    given: list[Letters] = [
        ("s", "n", "i"),
        ("d", "i", Copies("h", gates)),
        ("d", "h before", Copies("h", gates)),
        ("d", Copies("h", 2 * gates)),
        ("n",),
        state,
        state,
        ("d", Copies("h", PEEPHOLES)),
        *scale,
    ]
    inputs = [letters if _is_given(view, slot) else None for slot, letters in enumerate(given)]
    for slot, by, zero in ((1, 8, 9), (2, 10, 11)):
        view.encodings[slot] = _encoding(slot, by, zero)
    _part_directions(view, inputs, 1)
    outputs: list[Letters] = [("s", "d", "n", "h"), state, state]
    return through(
        view,
        inputs,
        outputs[: len(view.node.output)],
        averages=["h before"],
        fixes={"s": TIME},
        inherent={"d": DIRECTION},
        same={"h before": "h"},
    )


def _encoding(slot: int, scale: int, zero: int) -> Encoding:
    """What W or R stands for, with a scale and a zero point per direction, or per direction and gate position."""

    def laid_out(stored: Stored, other: int, default: float) -> Array:
        value = stored(other)
        found = np.full(1, default) if value is None else value
        return found.astype(np.float32).reshape(found.shape[0], 1, -1)

    def decode(stored: Stored) -> Array:
        value = stored(slot)
        assert value is not None
        return (value.astype(np.float32) - laid_out(stored, zero, 0)) * laid_out(stored, scale, 1)

    return Encoding(decode, lambda stored: laid_out(stored, zero, 0), (scale, zero))


def _part_directions(view: NodeView, inputs: Sequence[Letters | None], before: int) -> None:
    """Let every direction lose hidden units of its own, the same number each; R reads them along axis `before`."""
    directions, hidden = view.shape(2)[0], view.shape(2)[before]
    if directions == 1 or hidden == 1:
        return
    units = view.ledger.fresh(view.node.input[2], before, directions * hidden).reshape(directions, hidden)
    view.ledger.balance(units, 1)
    for slot, letters in enumerate(inputs):
        if letters is None or not view.is_weight(slot):
            continue
        for axis, letter in enumerate(letters):
            count = letter.count if isinstance(letter, Copies) else int(letter in ("h", "h before"))
            if count:
                shape = [directions if x == "d" else 1 for x in letters]
                shape[axis] = count * hidden
                view.assign(slot, axis, np.tile(units, count).reshape(shape))
