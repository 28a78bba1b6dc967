"""Blocks taken out of a graph: the tensor that enters one takes the place of the tensor that leaves it.

While a model is being fitted, a node stands where the block was and bears the name of what left it, so that tensors of
the original and of the smaller model that mean the same are called the same. `shortened` takes out what does nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.model.blocks import GraphBlock
from onnxprune.model.flatten import rename
from onnxprune.model.graph import first_output
from onnxprune.model.protos import copy_without, keep
from onnxprune.rewriting.plan_json import BYPASS, expect
from onnxprune.rewriting.removal import Removal
from onnxprune.rewriting.rewrite import nested
from onnxprune.rewriting.zero_elements import with_dense
from onnxprune.tracing import Groups

STAND_IN = "Identity"


@dataclass(frozen=True)
class BypassStep:
    """A block that is taken out.

    Attributes:
        block: its name.
        kind: "block", "branch" or "run".
        entry: the tensor that enters it.
        exit: the tensor that leaves it.
        weights: the stored tensors that nothing else reads.
        form: what stood for it in the end: "fold", "map", "scale" or "none".
    """

    block: str
    kind: str
    entry: str
    exit: str
    weights: tuple[str, ...] = field(default=(), repr=False)
    form: str = "none"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {name: getattr(self, name) for name in ("block", "entry", "exit", "form")}
        return {"kind": BYPASS, **plain, "part": self.kind, "weights": list(self.weights)}

    @staticmethod
    def from_json(raw: Mapping[str, Any], where: str) -> BypassStep:
        """Read a step.

        Raises:
            UsageError: it is none; the first offence is named by its place.
        """
        for name in ("block", "entry", "exit"):
            expect(isinstance(raw.get(name), str) and bool(raw[name]), "must be a text", f"{where}.{name}")
        for name in ("form", "part"):
            expect(isinstance(raw.get(name, ""), str), "must be a text", f"{where}.{name}")
        weights = raw.get("weights", [])
        expect(isinstance(weights, list) and all(isinstance(w, str) for w in weights), "must be names", where)
        part, form = raw.get("part", "block"), raw.get("form", "none")
        return BypassStep(raw["block"], part, raw["entry"], raw["exit"], weights=tuple(weights), form=form)


def blocks_of(steps: Sequence[BypassStep], blocks: Sequence[GraphBlock]) -> list[GraphBlock]:
    """Find the blocks that a plan takes out, by what they hold, else by their ends.

    Args:
        steps: those of the plan.
        blocks: the blocks of the model.

    Returns:
        The blocks, in the order of the model.

    Raises:
        UsageError: the model has no such block, it must stay, or two of them overlap.
    """
    found: list[GraphBlock] = []
    for step in steps:
        ends, weights = (step.entry, step.exit), tuple(sorted(step.weights))
        fitting = [b for b in blocks if (b.weights == weights if weights else (b.entry, b.exit) == ends)]
        block = min(fitting, key=lambda b: (b.entry, b.exit) != ends, default=None)
        if block is None:
            raise UsageError(
                f"the plan does not fit: the model has no block {step.block!r} with the same weights",
                hint="the plan was made for another model",
            )
        if block.problem:
            raise UsageError(f"the plan does not fit: block {step.block!r} must stay: {block.problem}")
        if any(block.overlaps(other) for other in found):
            raise UsageError(f"the plan does not fit: block {step.block!r} overlaps another one that is taken out")
        found.append(block)
    return sorted(found, key=blocks.index)


@dataclass(frozen=True, eq=False)
class Bypass(Removal):
    """Blocks that are taken out, seen from every tensor: no unit goes, but what is behind the blocks changes.

    Attributes:
        blocks: what is taken out.
    """

    blocks: tuple[GraphBlock, ...] = ()

    @staticmethod
    def of(groups: Groups, blocks: Sequence[GraphBlock], laid_out: Model | None = None) -> Bypass:
        """That of some blocks of a traced model."""
        return Bypass(groups, np.zeros(groups.classes.count, bool), laid_out, tuple(blocks))

    @cached_property
    def behind(self) -> frozenset[str]:
        """The tensors that change."""
        changed = {block.exit for block in self.blocks}
        for node in self.groups.tracing.model.proto.graph.node:
            if not changed.isdisjoint(node.input):
                changed.update(filter(None, node.output))
        return frozenset(changed)


def bypassed(groups: Groups, blocks: Sequence[GraphBlock]) -> Model:
    """Take blocks out of a traced model.

    Args:
        groups: the traced model.
        blocks: what goes; no two overlap.

    Returns:
        A flat model with a node for each block that hands on what entered it, under the name of what left.
    """
    flat = with_dense(groups, ())
    proto = copy_without(flat.proto, "node")
    inside = {name: block for block in blocks for name in block.nodes}
    entries = {name: block.entry for block in blocks for name in _made(flat, block)}
    same = {name: entry for name, entry in entries.items() if _dims(groups, name) == _dims(groups, entry) is not None}
    missing = entries.keys() - same.keys()
    for node in flat.proto.graph.node:
        block = inside.get(first_output(node))
        if block is not None:
            if block.exit in node.output:
                proto.graph.node.append(helper.make_node(STAND_IN, [block.entry], [block.exit]))
        elif not missing.isdisjoint(node.input):  # sizes that are read in blocks only
            missing |= set(filter(None, node.output))
        else:
            copied = proto.graph.node.add()
            copied.CopyFrom(node)
            rename(copied, {name: same[name] for name in copied.input if name in same})
    gone = {name for block in blocks for name in block.outputs}
    keep(proto.graph.output, lambda value: value.name not in gone)
    return replace(flat, proto=proto)


def _dims(groups: Groups, tensor: str) -> object:
    """The sizes of a tensor, with symbols where the run tells them; None where they are not known."""
    return groups.static.dims.get(tensor, groups.static.shapes.get(tensor))


def _made(flat: Model, block: GraphBlock) -> Iterator[str]:
    """What the nodes of a block make, but for what leaves it: outside, sizes alone are read of it."""
    inside = set(block.nodes)
    for node in flat.proto.graph.node:
        if first_output(node) in inside:
            yield from (name for name in node.output if name and name != block.exit)


def shortened(model: Model, blocks: Collection[GraphBlock]) -> Model:
    """The model as it is handed out: without nodes that only hand on, and with its bodies in place.

    Args:
        model: what came of `bypassed`; it is changed in place.
        blocks: what was taken out.

    Returns:
        The smaller model.
    """
    graph = model.proto.graph
    handed = {(block.entry, block.exit) for block in blocks} - {(b.entry, b.exit) for b in blocks if _is_out(graph, b)}
    idle = [n for n in graph.node if n.op_type == STAND_IN and (n.input[0], n.output[0]) in handed]
    source = {n.output[0]: n.input[0] for n in idle}
    keep(graph.node, lambda node: node.op_type != STAND_IN or node.output[0] not in source)
    final = {name: _first(source, name) for name in source}
    for node in graph.node:
        rename(node, final)
    return nested(model)


def _is_out(graph: onnx.GraphProto, block: GraphBlock) -> bool:
    return any(value.name == block.exit for value in graph.output)


def _first(source: Mapping[str, str], name: str) -> str:
    while name in source:
        name = source[name]
    return name
