"""Operators that ONNX Runtime has for a GPU alone, as standard nodes: the training copy is measured on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.model.protos import MICROSOFT
from onnxprune.typing import Array


@dataclass(eq=False)
class StandardNodes:
    """Standard nodes that stand for one node.

    Attributes:
        node: the node.
        arrays: constants by name; new ones are added.
        nodes: what stands for it so far.
    """

    node: onnx.NodeProto
    arrays: dict[str, Array]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute of the node."""
        return next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)

    def has(self, slot: int) -> bool:
        """Whether an input is given."""
        return slot < len(self.node.input) and bool(self.node.input[slot])

    def add(self, operator: str, *inputs: str | Array, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; arrays become constants."""
        made = output or f"{self.node.output[0]}/{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, [made], **attributes))
        return made

    def _constant(self, value: Array) -> str:
        name = f"{self.node.output[0]}/constant{len(self.arrays)}"
        self.arrays[name] = np.asarray(value)
        return name

    def sum_of(self, *slots: int) -> str:
        """The sum of the inputs that are given."""
        first, *others = [self.node.input[slot] for slot in slots if self.has(slot)]
        for other in others:
            first = self.add("Add", first, other)
        return first


def _bias_add(work: StandardNodes) -> None:
    work.add("Identity", work.sum_of(0, 1, 2), output=work.node.output[0])


def _bias_split_gelu(work: StandardNodes) -> None:
    """The first half times the gated second half."""
    whole = work.sum_of(0, 1)
    halves = [f"{work.node.output[0]}/half{i}" for i in (0, 1)]
    work.nodes.append(helper.make_node("Split", [whole], halves, axis=-1, num_outputs=2))
    inner = work.add("Erf", work.add("Mul", halves[1], np.array(1 / math.sqrt(2), np.float32)))
    gate = work.add("Mul", halves[1], work.add("Add", inner, np.array(1, np.float32)))
    work.add("Mul", halves[0], work.add("Mul", gate, np.array(0.5, np.float32)), output=work.node.output[0])


def _group_norm(work: StandardNodes) -> None:
    """Groups of channels, normalised as instances of one channel each; then a scale and a shift for each channel."""
    skips = (0, 3, 4) if work.node.op_type == "SkipGroupNorm" else (0,)
    x = work.sum_of(*skips)
    if len(work.node.output) > 1 and work.node.output[1]:
        work.add("Identity", x, output=work.node.output[1])
    last, groups = work.attribute("channels_last", 1), work.attribute("groups", 1)
    first = work.add("Transpose", x, perm=[0, 3, 1, 2]) if last else x
    rows = work.add("Reshape", first, np.array([0, groups, -1], np.int64))
    unit = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normal = work.add("InstanceNormalization", rows, *unit, epsilon=float(work.attribute("epsilon", 1e-5)))
    back = work.add("Reshape", normal, work.add("Shape", first))
    along = np.array([-1, 1, 1], np.int64)
    scaled = work.add("Mul", back, work.add("Reshape", work.node.input[1], along))
    y = work.add("Add", scaled, work.add("Reshape", work.node.input[2], along))
    if work.attribute("activation", 0):
        y = work.add("Mul", y, work.add("Sigmoid", y))
    y = work.add("Transpose", y, perm=[0, 2, 3, 1]) if last else y
    work.add("Identity", y, output=work.node.output[0])


_FORMS: Mapping[str, Callable[[StandardNodes], None]] = {
    "BiasAdd": _bias_add,
    "BiasSplitGelu": _bias_split_gelu,
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _group_norm,
}


def without_gpu_operators(proto: onnx.ModelProto, arrays: dict[str, Array]) -> None:
    """Replace the nodes of a graph that have no kernel on the CPU; `arrays` gets constants."""
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        form = _FORMS.get(node.op_type) if node.domain == MICROSOFT else None
        if form is None:
            nodes.append(node)
            continue
        work = StandardNodes(node, arrays)
        form(work)
        nodes.extend(work.nodes)
    if len(nodes) != len(proto.graph.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)
