"""Operators that sum products over an axis: convolutions, matrix products, Einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.means import average_of, averaged_letters, resize_count
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array

KERNEL = "spatial axis of a kernel"
SPATIAL = "spatial axis of a convolution"


def resize_group(edit: Edit, weight: int = 1) -> None:
    """`group` becomes the number of rows that remain."""
    group = _groups(edit.view)
    resize_count(edit)
    if group > 1:
        left = int(edit.kept(weight, 0).reshape(group, -1).any(axis=1).sum())
        if left != group:
            edit.set_attribute("group", left)


def _groups(view: NodeView) -> int:
    return int(view.attrs.get("group", 1))


def conv_contraction(view: NodeView) -> list[tuple[int | None, int]]:
    """Every output position, by every weight of its kernel."""
    return [(None, a) for a in range(len(view.out_shape()))] + [(1, a) for a in range(1, len(view.shape(1)))]


@dataclass(frozen=True)
class Slots:
    """Which inputs of a convolution are what.

    Attributes:
        x: the input.
        w: the weight.
        along: tensors with one entry per output channel; those of a single entry play no part.
        zero: holds what an element of the input that contributes nothing is, if that is not 0.
    """

    x: int = 0
    w: int = 1
    along: tuple[int, ...] = (2,)
    zero: int | None = None

    def per_channel(self, view: NodeView) -> list[int]:
        """The slots of `along` that are given."""
        return [s for s in self.along if view.has(s) and math.prod(view.shape(s)) > 1]


PLAIN = Slots()


@rule(
    "Conv",
    resize=resize_group,
    contraction=conv_contraction,
)
def conv(view: NodeView) -> list[Axes]:
    """Input channels contracted, output channels made; groups as rows or within each."""
    return convolved(view, PLAIN)


@rule(
    "ConvTranspose",
    resize=resize_group,
    contraction=lambda s: [(0, a) for a in range(len(s.shape(0)))] + [(1, a) for a in range(1, len(s.shape(1)))],
)
def conv_transpose(view: NodeView) -> list[Axes]:
    """Input channels contracted, output channels made; groups as rows or within each."""
    return convolved(view, PLAIN, transposed=True)


def convolved(view: NodeView, slots: Slots, *, transposed: bool = False) -> list[Axes]:
    """A convolution of whatever encoding."""
    if _groups(view) > 1:
        return _grouped(view, slots, transposed=transposed)
    kernel, space, output = _spatial(view, slots)
    inputs: list[Letters | None] = [None] * len(view.node.input)
    inputs[slots.x] = ("n", "c", *space)
    inputs[slots.w] = (*("cm" if transposed else "mc"), *kernel)
    for slot in slots.per_channel(view):
        inputs[slot] = ("m",)
    averages: list[Letter] = []
    if slots == PLAIN and not transposed:
        sizes = view.shape(slots.w)[2:]
        averages = averaged_letters(view, [("n", "c", *space), ("m", "c", *kernel)], ("n", "m"), math.prod(sizes))
    return through(
        view,
        inputs,
        [("n", "m", *output)],
        averages=averages,
        fixes=dict.fromkeys(set(space) - set(output), SPATIAL),
        inherent=dict.fromkeys(kernel, KERNEL),
        zeros={} if slots.zero is None else {slots.x: slots.zero},
    )


def _spatial(view: NodeView, slots: Slots) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Letters of the kernel's, the input's and the output's spatial axes.

    An axis with a kernel of 1, a stride of 1 and no padding is not mixed: its output has the letter of its input.
    """
    sizes = view.shape(slots.w)[2:]
    count = len(sizes)
    kernel, space = (tuple(f"{x}{i}" for i in range(count)) for x in "ks")
    strides, pads = view.attrs.get("strides", [1] * count), view.attrs.get("pads", [0] * 2 * count)
    padded = list(view.attrs.get("output_padding", [0] * count))
    plain = [(sizes[i], strides[i], pads[i], pads[i + count], padded[i]) == (1, 1, 0, 0, 0) for i in range(count)]
    return kernel, space, tuple(space[i] if plain[i] else f"o{i}" for i in range(count))


def _grouped(view: NodeView, slots: Slots, *, transposed: bool) -> list[Axes]:
    """A convolution in groups: channels are rows (the groups) x positions within.

    `Conv` weights are [groups x out, in, ...], those of `ConvTranspose` [groups x in, out, ...]: axis 0 lists
    rows x positions, and the positions of axis 1 are another choice in every row.
    """
    ledger, group = view.ledger, _groups(view)
    x, w, sizes = view.labels(slots.x), view.labels(slots.w), view.shape(slots.w)
    _, inside, outside = _spatial(view, slots)
    space: list[Array] = []
    for axis, (before, after) in enumerate(zip(inside, outside, strict=True), 2):
        ledger.fix(w[axis], view.reason(KERNEL, inherent=True))
        if before != after:
            ledger.fix(x[axis], view.reason(SPATIAL))
        space.append(view.uniform(x[axis], axis) if before == after else view.barrier(SPATIAL))
    outer = _rows(w[0], group, sizes[0])
    entering = _rows(view.uniform(x[1], 1), group, view.shape(slots.x)[1])
    if transposed:
        ledger.tie(outer, entering)
        inner = ledger.fresh(view.node.input[slots.w], 1, group * sizes[1]).reshape(group, -1)
    else:
        inner = entering
    within = min(outer.shape[1], sizes[1]) > 1 and view.is_weight(slots.w)
    if within and ledger.choose((view.node.output[0], 1), np.concatenate([outer, inner], axis=1), (0, 1)) == 1:
        ledger.balance(outer, 1)
        ledger.balance(inner, 1)
        view.assign(
            slots.w,
            1,
            np.repeat(inner, outer.shape[1], axis=0).reshape(sizes[0], sizes[1], *[1] * (len(sizes) - 2)),
        )
    else:
        first = outer[:, :1]
        ledger.tie(outer, first)
        ledger.tie(inner, first)
        ledger.fix(w[1], view.reason("channel within a group, where whole groups go", inherent=True))
    made = (inner if transposed else outer).reshape(-1)
    for slot in slots.per_channel(view):
        ledger.tie(view.labels(slot)[0], made)
    view.masked_axes.append(MaskedAxis(slots.x, 1, False, slots.zero, (slots.x, slots.w)))
    return [(x[0], made, *space)]


def _rows(line: Array, group: int, size: int) -> Array:
    return np.broadcast_to(line, (size,)).reshape(group, -1)


@rule("Gemm", resize=resize_count, contraction=lambda s: [(None, 0), (None, 1), (0, 0 if s.attrs.get("transA") else 1)])
def gemm(view: NodeView) -> list[Axes]:
    """Inner axis contracted, outer axes kept, C broadcast."""
    inputs, output = _gemm_letters(view)
    averages = averaged_letters(view, inputs, output, view.attrs.get("alpha", 1.0))
    if view.has(2):
        bias: list[Letter] = ["m", "n"]
        inputs.append(bias[2 - len(view.shape(2)) :])
    return through(view, inputs, [output], averages=averages)


@rule(
    "MatMul",
    resize=resize_count,
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(0, len(s.shape(0)) - 1)],
)
def matmul(view: NodeView) -> list[Axes]:
    """Inner axis contracted, outer and batch axes kept."""
    a, b, out, batch = product_letters(view, 0, 1)
    results = through(view, [a, b], [out], averages=averaged_letters(view, [a, b], out))
    note_heads(view, [a, b], batch)
    return results


def letters(view: NodeView) -> tuple[list[list[Letter]], list[Letter]]:
    """A letter per axis of the factors and of the product of a Gemm, MatMul or Einsum; batch axes are numbers."""
    if view.node.op_type == "MatMul":
        a, b, out, _ = product_letters(view, 0, 1)
        return [a, b], out
    return _gemm_letters(view) if view.node.op_type in ("Gemm", "QGemm") else _equation(view)


def _gemm_letters(view: NodeView) -> tuple[list[list[Letter]], list[Letter]]:
    a: list[Letter] = ["k", "m"] if view.attrs.get("transA") else ["m", "k"]
    b: list[Letter] = ["n", "k"] if view.attrs.get("transB") else ["k", "n"]
    return [a, b], ["m", "n"]


def product_letters(view: NodeView, first: int, second: int) -> tuple[list[Letter], list[Letter], list[Letter], range]:
    """Letters of the two factors and of the product of a `MatMul`, and its batch letters."""
    ranks = len(view.shape(first)), len(view.shape(second))
    batch = max(*ranks, 2) - 2
    a: list[Letter] = [*range(batch - max(ranks[0] - 2, 0), batch), *(("m", "k") if ranks[0] > 1 else ("k",))]
    b: list[Letter] = [*range(batch - max(ranks[1] - 2, 0), batch), *(("k", "n") if ranks[1] > 1 else ("k",))]
    out: list[Letter] = [*range(batch), *("m" if ranks[0] > 1 else ""), *("n" if ranks[1] > 1 else "")]
    return a, b, out, range(batch)


def note_heads(view: NodeView, inputs: Sequence[Letters | None], batch: range | list[Letter]) -> None:
    """Rows of a split that are the batch axis of a product of two activations are attention heads."""
    factors = [(slot, letters) for slot, letters in enumerate(inputs) if letters is not None]
    if any(view.constant[slot] for slot, _ in factors):
        return
    for slot, letters in factors:
        for labels, letter in zip(view.labels(slot), letters, strict=True):
            row = view.ledger.row_of(labels) if letter in batch else None
            if row is not None:
                view.ledger.heads.setdefault(*row)


def _equation(view: NodeView) -> tuple[list[list[Letter]], list[Letter]]:
    text = view.attrs["equation"].replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if not arrow:
        plain = left.replace(",", "").replace("...", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(plain) if plain.count(c) == 1))
    width = max((len(view.shape(i)) - len(t.replace("...", "")) for i, t in enumerate(terms) if "..." in t), default=0)

    def expand(term: str, count: int) -> list[Letter]:
        head, dots, tail = term.partition("...")
        return [*head, *(range(width - count, width) if dots else ()), *tail]

    inputs = [expand(t, len(view.shape(i)) - len(t.replace("...", ""))) for i, t in enumerate(terms)]
    return inputs, expand(right, width)


def _einsum_contraction(view: NodeView) -> list[tuple[int | None, int]]:
    inputs, _ = _equation(view)
    seen: dict[Letter, tuple[int | None, int]] = {}
    for slot, letters in enumerate(inputs):
        for axis, letter in enumerate(letters):
            if letter not in seen or view.shape(slot)[axis] > 1:
                seen.setdefault(letter, (slot, axis))
    return list(seen.values())


@rule("Einsum", resize=resize_count, contraction=_einsum_contraction)
def einsum(view: NodeView) -> list[Axes]:
    """By the equation: shared letters tied, letters without output contracted."""
    inputs, output = _equation(view)
    for slot, term in enumerate(inputs):
        if len(set(term)) < len(term) and any(labels.ndim > 1 for labels in view.labels(slot)):
            raise Unsupported("an Einsum term repeats a letter")
    averages = averaged_letters(view, inputs, output)
    if len(inputs) == 1:
        axes = [a for a, letter in enumerate(inputs[0]) if letter not in output]
        view.average = average_of(view, 0, axes)
        averages = [inputs[0][a] for a in view.average.axes] if view.average is not None else []
    results = through(view, inputs, [output], averages=averages)
    if len(inputs) == 2:
        shared = [x for x in inputs[0] if x in inputs[1] and x in output]
        note_heads(view, inputs, shared)
    return results
