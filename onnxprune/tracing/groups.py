"""Groups from traced labels: weights that must shrink together, in which units, and what is locked and why."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Couplings, HeldWidths, Model, inlined, refuse_negative_sizes
from onnxprune.model.flatten import flattened
from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.model.tensors import tensors
from onnxprune.shown import Shown
from onnxprune.tracing.barriers import Barrier, barriers
from onnxprune.tracing.describe import describe, elements_of, parameters_of
from onnxprune.tracing.group import Group
from onnxprune.tracing.held_widths import groups_held, with_widths_held
from onnxprune.tracing.labels import LONGEST_AXIS, Classes, Constraints
from onnxprune.tracing.partition import Part, form
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.tracing.tracer import Tracer
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

MAX_RETRACES = 6
# Positions that may get labels whatever the weights are.
FEW_POSITIONS = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Groups(Shown):
    """Everything that tracing says about a model; `tracing.model` is `model` with its bodies laid out flat.

    `held` has the classes of the groups of each width that is stated once (`Model.couplings`).

    Example:
        >>> import onnxprune
        >>> groups = onnxprune.trace("models/digits.onnx")
        >>> held, total = groups.prunable
        >>> round(held / total, 2)
        1.0
        >>> groups.group_of.shape == (groups.classes.count,)
        True
    """

    model: Model
    groups: tuple[Group, ...]
    tracing: TraceResult
    classes: Classes
    policy: Mapping[tuple[str, int], int]
    heads: bool = True
    head_dims: bool = False
    allow_io_changes: bool | Collection[str] = False
    rows: AbstractSet[str] = frozenset()
    held: Mapping[HeldWidths, Array] = field(default_factory=dict)

    @property
    def static(self) -> StaticInfo:
        """Its static shapes and values."""
        return self.tracing.static

    @cached_property
    def group_of(self) -> Array:
        """int32[classes], index of the group of every class; -1 for none."""
        found = np.full(self.classes.count, -1, np.int32)
        for index, group in enumerate(self.groups):
            found[group.classes] = index
        return found

    @cached_property
    def prunable(self) -> tuple[int, int]:
        """(weight elements that some group holds, all weight elements)."""
        counted = {key for key in self.tracing.weights if self.tracing.holds_parameters(key)}
        members = [member for group in self.groups for member in group.members if member.key in counted]
        return parameters_of(self.tracing, members), sum(elements_of(self.tracing, key) for key in counted)

    @cached_property
    def barriers(self) -> tuple[Barrier, ...]:
        """Every reason that locks weights, most first."""
        return barriers(self.tracing, self.classes)


def trace(
    model: Model,
    *,
    heads: bool = True,
    head_dims: bool = False,
    allow_io_changes: bool | Collection[str] = False,
    rows: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> Groups:
    """Trace a model and form its groups.

    A split axis (heads x head size, groups x channels within) has a policy: which of its axes shrinks. The first
    trace takes the innermost; rows that turn out to be the batch axis of a product of activations are attention
    heads and go whole, and a split whose labels end up locked tries the next axis out.

    Args:
        model: the model.
        heads: attention heads may be removed.
        head_dims: dimensions within every head are removed instead of heads.
        allow_io_changes: graph inputs and outputs may shrink along the channels of a layer: all, none, or those that
            globs name.
        rows: tables whose rows may be removed although computed ids index them.
        sizes: numbers for symbolic dims.

    Returns:
        The groups, and what is locked and why.
    """
    original = inlined(model)
    model = flattened(original)
    static = infer(model, sizes)
    refuse_negative_sizes(model, static)
    longest = _longest(original)
    policy, attention = dict[tuple[str, int], int](), set[tuple[str, int]]()
    opened = _io_axes(model, static, allow_io_changes)
    tracer = Tracer(model, static, Constraints(), opened, frozenset(rows))
    for _ in range(MAX_RETRACES):
        tracer = tracer.again(Constraints(policy, longest=longest), opened)
        tracing, classes = tracer.run()
        attention.update(tracing.ledger.heads)
        parts, classes = form(tracing, classes)
        revised = _revise(policy, tracing.ledger, classes, attention, heads=heads, head_dims=head_dims)
        # An axis without a layer under one policy (the rows of a split) may have one under the next.
        layered = tracing.layered(classes) if revised == policy else opened
        if revised == policy and layered == opened:
            break
        policy, opened = revised, layered
    kinds = _head_classes(tracing.ledger, classes, frozenset(() if head_dims else attention))
    groups, classes, held = _held(original.couplings, tracing, classes, parts, kinds)
    return Groups(
        model=original,
        groups=groups,
        tracing=tracing,
        classes=classes,
        policy=policy,
        heads=heads,
        head_dims=head_dims,
        allow_io_changes=allow_io_changes,
        rows=frozenset(rows),
        held=held,
    )


def _held(
    couplings: Couplings, tracing: TraceResult, classes: Classes, parts: Sequence[Part], kinds: Mapping[str, Array]
) -> tuple[tuple[Group, ...], Classes, dict[HeldWidths, Array]]:
    """The groups, with the classes of those whose widths are stated once: these are formed again, in proportion."""
    groups = describe(tracing, classes, parts, kinds)
    held = groups_held(groups, couplings.widths)
    if held:
        parts, classes = form(tracing, with_widths_held(tracing, classes, held))
        groups = describe(tracing, classes, parts, kinds)
    return groups, classes, {widths: np.concatenate([one.classes for one in alike]) for widths, alike in held.items()}


def _longest(model: Model) -> int:
    """Positions that some weight has: its elements, since exporters reshape weights; some thousand in any case."""
    most = max((math.prod(tensor.dims) for tensor in tensors(model.proto)), default=0)
    return min(max(most, FEW_POSITIONS), LONGEST_AXIS)


def retrace(groups: Groups, sizes: Mapping[str, int]) -> Groups:
    """Trace the same model under the same options, at other numbers for its symbolic dims.

    Args:
        groups: the traced model.
        sizes: symbolic dim -> number.

    Returns:
        The trace at these numbers.
    """
    return trace(
        groups.model,
        heads=groups.heads,
        head_dims=groups.head_dims,
        allow_io_changes=groups.allow_io_changes,
        rows=groups.rows,
        sizes=sizes,
    )


def _io_axes(model: Model, static: StaticInfo, allowed: bool | Collection[str]) -> frozenset[tuple[str, int]]:
    """The axes of inputs and outputs that could be channels: static, longer than 1, and of an input not the batch.

    Args:
        model: the flat model.
        static: its static shapes.
        allowed: whether there are any, or globs of the inputs and outputs that may have some.

    Raises:
        UsageError: a glob matches none.
    """
    graph = model.proto.graph
    named = allowed if isinstance(allowed, Collection) else ()
    globs = named or (("*",) if allowed else ())
    names = [value.name for value in (*graph.input, *graph.output)]
    for glob in named:
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(f"allow_io_changes: no input or output is called {glob!r}", hint=f"known: {names[:9]}")
    weights = {t.name for t in graph.initializer}
    inputs = {v.name for v in graph.input if v.name not in weights and static.dtypes.get(v.name) in WEIGHT_TYPES}
    found: set[tuple[str, int]] = set()
    for name in inputs | {v.name for v in graph.output}:
        shape, dynamic = static.shapes.get(name, ()), static.dynamic.get(name, ())
        first = 1 if name in inputs and len(shape) > 1 else 0
        if any(fnmatchcase(name, glob) for glob in globs):
            found.update((name, a) for a in range(first, len(shape)) if shape[a] > 1 and a not in dynamic)
    return frozenset(found)


# --- policies of splits ----------------------------------------------------------------------------------


def _revise(
    policy: Mapping[tuple[str, int], int],
    ledger: Constraints,
    classes: Classes,
    attention: AbstractSet[tuple[str, int]],
    *,
    heads: bool,
    head_dims: bool,
) -> dict[tuple[str, int], int]:
    """The policy for the next trace: attention splits by heads, locked splits one axis further out."""
    revised = dict(policy)
    if not head_dims:
        for key, taken in ledger.heads.items():
            revised.setdefault(key, taken if heads else -1)
    if revised != policy:
        return revised
    free = classes.free
    for choice in ledger.choices:
        labels = choice.labels[choice.labels >= 0]
        if choice.key not in attention and choice.shrinking > 0 and labels.size and not free[classes.of[labels]].any():
            revised[choice.key] = choice.shrinking - 1
    return revised


def _head_classes(ledger: Constraints, classes: Classes, attention: frozenset[tuple[str, int]]) -> dict[str, Array]:
    """Classes of attention splits, by kind of unit."""
    found: dict[str, list[Array]] = {"head": [], "head dim": []}
    for choice in ledger.choices:
        flat = choice.labels[choice.labels >= 0]
        if choice.key in ledger.heads:
            found["head dim"].append(classes.of[flat])
        elif choice.key in attention:
            found["head"].append(classes.of[flat])
    return {kind: np.concatenate([np.empty(0, np.int32), *parts]) for kind, parts in found.items()}
