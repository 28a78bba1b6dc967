"""Normalisation operators: what a removed channel means for statistics, scale and bias."""

from __future__ import annotations

import numpy as np

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import MaskedAxis, NodeView
from onnxprune.tracing.rules.registry import rule


def axis_of(view: NodeView, default: int, slot: int = 0) -> int:
    """The `axis` attribute, counted from the front."""
    axis = int(view.attrs.get("axis", default))
    return axis + len(view.shape(slot)) if axis < 0 else axis


@rule("BatchNormalization")
def batch_normalization(view: NodeView) -> list[Axes]:
    """Per channel: scale, bias, mean and variance follow; while training, the other axes are averaged over."""
    x: Letters = ["n", "c", *range(len(view.shape(0)) - 2)][: len(view.shape(0))]
    extra = len(view.node.output) - 1
    averages = [a for a in x if a != "c"] if view.attrs.get("training_mode") else ()
    return through(view, [x, *[("c",)] * 4], [x, *[("c",)] * extra], averages=averages)


@rule("InstanceNormalization")
def instance_normalization(view: NodeView) -> list[Axes]:
    """Per channel; the other axes are averaged over."""
    space = range(len(view.shape(0)) - 2)
    x = ("n", "c", *space)
    return through(view, [x, ("c",), ("c",)], [x], averages=space)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(view: NodeView) -> list[Axes]:
    """Averaged over `axis` and all behind it: removal changes the statistics."""
    rank, axis = len(view.shape(0)), axis_of(view, -1)
    x = range(rank)
    parameters = [
        range(rank - len(view.shape(slot)), rank) for slot in range(1, len(view.node.input)) if view.has(slot)
    ]
    statistics: Letters = [*range(axis), *(f"one{a}" for a in range(axis, rank))]
    extra = len(view.node.output) - 1
    return through(view, [x, *parameters], [x, *[statistics] * extra], averages=x[axis:])


def _resize_num_groups(edit: Edit) -> None:
    """`num_groups` becomes the number of rows that remain."""
    group = int(edit.view.attrs["num_groups"])
    left = int(edit.kept(0, 1).reshape(group, -1).any(axis=1).sum())
    if left != group:
        edit.set_attribute("num_groups", left)


@rule("GroupNormalization", resize=_resize_num_groups)
def group_normalization(view: NodeView) -> list[Axes]:
    """Groups are rows: whole rows go, or the same number within each (then the statistics change)."""
    ledger, group = view.ledger, int(view.attrs["num_groups"])
    x, channels = view.labels(0), view.shape(0)[1]
    line = np.broadcast_to(view.uniform(x[1], 1), (channels,))
    rows = line.reshape(group, -1)
    if group < channels and ledger.choose((view.node.output[0], 0), rows, (0, 1)) == 1:
        ledger.balance(rows, 1)
        view.masked_axes.append(MaskedAxis(0, 1, True))
    else:
        ledger.tie(rows, rows[:, :1])
    for slot in (1, 2):
        per_group = view.shape(slot)[0] == group != channels
        ledger.tie(view.labels(slot)[0], rows[:, 0] if per_group else line)
    for axis in range(2, len(x)):
        ledger.fix(x[axis], view.reason("averaged over"))
    return [x]


@rule("LRN")
def lrn(view: NodeView) -> list[Axes]:
    """Normalised by a window over the channels: removal changes the neighbours."""
    letters = range(len(view.shape(0)))
    return through(view, [letters], [letters], averages=[1])


@rule("LpNormalization")
def lp_normalization(view: NodeView) -> list[Axes]:
    """Divided by the norm along `axis`: removed positions count as zero."""
    axis = axis_of(view, -1)
    letters = range(len(view.shape(0)))
    view.masked_axes.append(MaskedAxis(0, axis, False))
    return through(view, [letters], [letters])


@rule("MeanVarianceNormalization")
def mean_variance_normalization(view: NodeView) -> list[Axes]:
    """Averaged over `axes`: removal changes the statistics."""
    rank = len(view.shape(0))
    axes = [int(a) % rank for a in view.attrs.get("axes", (0, 2, 3))]
    return through(view, [range(rank)], [range(rank)], averages=axes)


@rule("Softmax", "LogSoftmax", "Hardmax", since=13)
def softmax(view: NodeView) -> list[Axes]:
    """Each position on its own across `axis`, which must stay whole."""
    letters = range(len(view.shape(0)))
    return through(view, [letters], [letters], fixes={axis_of(view, -1): "softmax axis"})


@rule("Softmax", "LogSoftmax", "Hardmax", until=12)
def softmax_flattened(view: NodeView) -> list[Axes]:
    """Each position on its own in front of `axis`; all axes from there on must stay whole."""
    letters = range(len(view.shape(0)))
    return through(view, [letters], [letters], fixes=dict.fromkeys(letters[axis_of(view, 1) :], "softmax axis"))
