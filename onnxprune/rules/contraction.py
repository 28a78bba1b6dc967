"""Operators that sum products over an axis: convolutions, matrix products, Einsum."""

from __future__ import annotations

import numpy as np

from onnxprune.labels import Array, Axes
from onnxprune.rules.edit import Edit
from onnxprune.rules.registry import rule
from onnxprune.rules.site import Letter, Reading, Site, Unsupported, through

KERNEL = "spatial axis of a kernel"
SPATIAL = "spatial axis of a convolution"


def _follow_group(edit: Edit) -> None:
    """`group` becomes the number of rows that remain."""
    group = _groups(edit.site)
    if group > 1:
        left = int(edit.kept(1, 0).reshape(group, -1).any(axis=1).sum())
        if left != group:
            edit.set_attribute("group", left)


def _groups(site: Site) -> int:
    return int(site.attrs.get("group", 1))


@rule(
    "Conv",
    follow=_follow_group,
    work=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(1, a) for a in range(1, len(s.shape(1)))],
)
def conv(site: Site) -> list[Axes]:
    """Input channels contracted, output channels made; groups as rows or within each."""
    return _grouped(site, transposed=False) if _groups(site) > 1 else _convolution(site, ("m", "c"))


@rule(
    "ConvTranspose",
    follow=_follow_group,
    work=lambda s: [(0, a) for a in range(len(s.shape(0)))] + [(1, a) for a in range(1, len(s.shape(1)))],
)
def conv_transpose(site: Site) -> list[Axes]:
    """Input channels contracted, output channels made; groups as rows or within each."""
    return _grouped(site, transposed=True) if _groups(site) > 1 else _convolution(site, ("c", "m"))


def _convolution(site: Site, weight: tuple[str, str]) -> list[Axes]:
    """A convolution without groups; `weight` has the letters of its weight's channel axes."""
    kernel, space, output = _spatial(site)
    bias = [("m",)] if site.has(2) else []
    return through(
        site,
        [("n", "c", *space), (*weight, *kernel), *bias],
        [("n", "m", *output)],
        fixes=dict.fromkeys(set(space) - set(output), SPATIAL),
        inherent=dict.fromkeys(kernel, KERNEL),
    )


def _spatial(site: Site) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Letters of the kernel's, the input's and the output's spatial axes.

    An axis with a kernel of 1, a stride of 1 and no padding is not mixed: its output has the letter of its input.
    """
    count = len(site.shape(1)) - 2
    kernel, space = (tuple(f"{x}{i}" for i in range(count)) for x in "ks")
    strides, pads = site.attrs.get("strides", [1] * count), site.attrs.get("pads", [0] * 2 * count)
    padded = list(site.attrs.get("output_padding", [0] * count))
    plain = [
        (site.shape(1)[2 + i], strides[i], pads[i], pads[i + count], padded[i]) == (1, 1, 0, 0, 0) for i in range(count)
    ]
    return kernel, space, tuple(space[i] if plain[i] else f"o{i}" for i in range(count))


def _grouped(site: Site, *, transposed: bool) -> list[Axes]:
    """A convolution in groups: channels are rows (the groups) x positions within.

    `Conv` weights are [groups x out, in, ...], those of `ConvTranspose` [groups x in, out, ...]: axis 0 lists
    rows x positions, and the positions of axis 1 are another choice in every row.
    """
    ledger, group = site.ledger, _groups(site)
    x, w, sizes = site.labels(0), site.labels(1), site.shape(1)
    _, inside, outside = _spatial(site)
    space: list[Array] = []
    for axis, (before, after) in enumerate(zip(inside, outside, strict=True), 2):
        ledger.fix(w[axis], site.reason(KERNEL, inherent=True))
        if before != after:
            ledger.fix(x[axis], site.reason(SPATIAL))
        space.append(site.uniform(x[axis], axis) if before == after else site.barrier(SPATIAL))
    outer = _rows(w[0], group, sizes[0])
    entering = _rows(site.uniform(x[1], 1), group, site.shape(0)[1])
    if transposed:
        ledger.tie(outer, entering)
        inner = ledger.fresh(site.node.input[1], 1, group * sizes[1]).reshape(group, -1)
    else:
        inner = entering
    within = min(outer.shape[1], sizes[1]) > 1 and site.is_weight(1)
    if within and ledger.choose((site.node.output[0], 1), np.concatenate([outer, inner], axis=1), (0, 1)) == 1:
        ledger.balance(outer, 1)
        ledger.balance(inner, 1)
        site.assign(
            1,
            1,
            np.repeat(inner, outer.shape[1], axis=0).reshape(sizes[0], sizes[1], *[1] * (len(sizes) - 2)),
        )
    else:
        first = outer[:, :1]
        ledger.tie(outer, first)
        ledger.tie(inner, first)
        ledger.fix(w[1], site.reason("channel within a group, where whole groups go", inherent=True))
    made = (inner if transposed else outer).reshape(-1)
    if site.has(2):
        ledger.tie(site.labels(2)[0], made)
    site.readings.append(Reading(0, 1, False))
    return [(x[0], made, *space)]


def _rows(line: Array, group: int, size: int) -> Array:
    return np.broadcast_to(line, (size,)).reshape(group, -1)


@rule("Gemm", work=lambda s: [(None, 0), (None, 1), (0, 0 if s.attrs.get("transA") else 1)])
def gemm(site: Site) -> list[Axes]:
    """Inner axis contracted, outer axes kept, C broadcast."""
    a = ("k", "m") if site.attrs.get("transA") else ("m", "k")
    b = ("n", "k") if site.attrs.get("transB") else ("k", "n")
    inputs: list[tuple[str, ...]] = [a, b]
    if site.has(2):
        inputs.append(("m", "n")[2 - len(site.shape(2)) :])
    return through(site, inputs, [("m", "n")])


@rule("MatMul", work=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(0, len(s.shape(0)) - 1)])
def matmul(site: Site) -> list[Axes]:
    """Inner axis contracted, outer and batch axes kept."""
    ranks = len(site.shape(0)), len(site.shape(1))
    batch = max(*ranks, 2) - 2
    a: list[Letter] = [*range(batch - max(ranks[0] - 2, 0), batch), *(("m", "k") if ranks[0] > 1 else ("k",))]
    b: list[Letter] = [*range(batch - max(ranks[1] - 2, 0), batch), *(("k", "n") if ranks[1] > 1 else ("k",))]
    out: list[Letter] = [*range(batch), *("m" if ranks[0] > 1 else ""), *("n" if ranks[1] > 1 else "")]
    results = through(site, [a, b], [out])
    note_heads(site, [a, b], range(batch))
    return results


def note_heads(site: Site, inputs: list[list[Letter]], batch: range | list[Letter]) -> None:
    """Rows of a split that are the batch axis of a product of two activations are attention heads."""
    if any(site.constant):
        return
    for slot, letters in enumerate(inputs):
        for labels, letter in zip(site.labels(slot), letters, strict=True):
            row = site.ledger.row_of(labels) if letter in batch else None
            if row is not None:
                site.ledger.heads.setdefault(*row)


def _equation(site: Site) -> tuple[list[list[Letter]], list[Letter]]:
    text = site.attrs["equation"].replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if not arrow:
        plain = left.replace(",", "").replace("...", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(plain) if plain.count(c) == 1))
    width = max((len(site.shape(i)) - len(t.replace("...", "")) for i, t in enumerate(terms) if "..." in t), default=0)

    def expand(term: str, count: int) -> list[Letter]:
        head, dots, tail = term.partition("...")
        return [*head, *(range(width - count, width) if dots else ()), *tail]

    inputs = [expand(t, len(site.shape(i)) - len(t.replace("...", ""))) for i, t in enumerate(terms)]
    return inputs, expand(right, width)


def _einsum_work(site: Site) -> list[tuple[int | None, int]]:
    inputs, _ = _equation(site)
    seen: dict[Letter, tuple[int | None, int]] = {}
    for slot, letters in enumerate(inputs):
        for axis, letter in enumerate(letters):
            if letter not in seen or site.shape(slot)[axis] > 1:
                seen.setdefault(letter, (slot, axis))
    return list(seen.values())


@rule("Einsum", work=_einsum_work)
def einsum(site: Site) -> list[Axes]:
    """By the equation: shared letters tied, letters without output contracted."""
    inputs, output = _equation(site)
    for slot, letters in enumerate(inputs):
        if len(set(letters)) < len(letters) and any(labels.ndim > 1 for labels in site.labels(slot)):
            raise Unsupported("an Einsum term repeats a letter")
    results = through(site, inputs, [output])
    if len(inputs) == 2:
        shared = [x for x in inputs[0] if x in inputs[1] and x in output]
        note_heads(site, inputs, shared)
    return results
