"""Calls of rules, all in one place: whatever a rule cannot handle becomes a barrier.

No schema checks the operators of other domains and of deprecated versions, and no checker knows the ranks of their
inputs: a rule may meet any number of inputs and outputs, of any rank, and attributes of any type and value. Rules are
written for valid nodes. Whatever a rule raises on another node, and whatever it returns that contradicts the shapes of
the node, becomes a barrier with a reason; so a new rule needs no checks of its own to be safe.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from onnxprune.errors import ModelError
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.node_view import NodeView
from onnxprune.tracing.rules.registry import Resize, Rule
from onnxprune.typing import Array, Shape

logger = logging.getLogger(__name__)

CONTRADICTION = "cannot be followed"


def ask(rule: Rule, view: NodeView) -> Sequence[Axes | None]:
    """Ask a rule for the labels of every output of a node; None for an output that stays whole.

    The sizes of the rule's contractions are looked up here, so that nobody who counts them later meets an error.

    Raises:
        Unsupported: the node becomes a barrier.
    """
    try:
        made = list(rule.trace(view))
        for name, axes in zip(view.node.output, made, strict=False):
            shape = view.static.shapes.get(name)
            if axes is not None and name and shape is not None and not fits(axes, shape):
                raise Unsupported(f"{CONTRADICTION}: output {name!r} of shape {list(shape)} does not fit the inputs")
        _try_contractions(rule, view)
    except Unsupported:
        raise
    except Exception as error:
        logger.debug("%s %r: %s: %s", view.node.op_type, view.name, type(error).__name__, error)
        raise Unsupported(f"{CONTRADICTION}: {error}") from error
    return made


def resize_node(resize: Resize, edit: Edit) -> None:
    """Fit a node to the new sizes around it.

    Args:
        resize: the part of a rule that edits nodes.
        edit: a copy of the node, and the sizes around it.

    Raises:
        ModelError: the rule, which may be a user's, fails; a proof rolls the group back.
    """
    try:
        resize(edit)
    except Exception as error:
        raise ModelError(f"{edit.view.node.op_type} {edit.view.name!r} cannot follow: {error}") from error


def fits(axes: Axes, shape: Shape) -> bool:
    """Whether there are labels for every axis of a shape: a line each, or a field."""
    return len(axes) == len(shape) and all(_fits(labels, a, shape) for a, labels in enumerate(axes))


def _fits(labels: Array, axis: int, shape: Shape) -> bool:
    if labels.ndim == 1:
        return len(labels) in (1, shape[axis])
    return labels.ndim == len(shape) and all(n in (1, size) for n, size in zip(labels.shape, shape, strict=True))


def _try_contractions(rule: Rule, view: NodeView) -> None:
    """Look up every size of the rule's contractions."""
    if rule.contractions is None:
        return
    for product in rule.contractions(view):
        for slot, axis in product:
            if slot is None and not view.node.output[0]:
                raise Unsupported("its first output is not asked for")
            _ = (view.out_shape() if slot is None else view.shape(slot))[axis]
