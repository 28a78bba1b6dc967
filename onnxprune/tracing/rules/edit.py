"""Edits of a node by its rule when the sizes around it change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.tracing.rules.node_view import NodeView
from onnxprune.typing import Array, Shape

LARGEST_INT64 = np.iinfo(np.int64).max


@dataclass
class Edit:
    """A node that is being rewritten.

    Attributes:
        view: the node as it was traced.
        node: a copy of the node that may be changed.
        new_in: sizes of every input after pruning (None for an omitted or unknown one).
        new_out: sizes of every output after pruning.
        kept: (slot, axis) -> bool mask of the positions that remain on an axis of an input; slot None is the
            first output.
        constants: new initializers by name, of all nodes that were edited so far.
        before: nodes to insert before the node.
        after: nodes to insert after it.
        unique: makes a name that no tensor has.
    """

    view: NodeView
    node: onnx.NodeProto
    new_in: Sequence[Shape | None]
    new_out: Sequence[Shape | None]
    kept: Callable[[int | None, int], Array]
    unique: Callable[[str], str]
    constants: dict[str, Array]
    before: list[onnx.NodeProto] = field(default_factory=list)
    after: list[onnx.NodeProto] = field(default_factory=list)

    def set_attribute(self, name: str, value: Any) -> None:
        """Replace (or add) an attribute; its doc string stays."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                doc = attribute.doc_string
                attribute.CopyFrom(helper.make_attribute(name, value))
                attribute.doc_string = doc
                return
        self.node.attribute.append(helper.make_attribute(name, value))

    def set_input(self, slot: int, value: Array, role: str) -> None:
        """Replace an input by a new constant."""
        while len(self.node.input) <= slot:
            self.node.input.append("")
        self.node.input[slot] = self.constant(value, role)

    def constant(self, value: Array, role: str) -> str:
        """The name of a constant; one that was added before serves again."""
        for name, known in self.constants.items():
            if known.dtype == value.dtype and np.array_equal(known, value):
                return name
        name = self.unique(f"onnxprune_{role}")
        self.constants[name] = value
        return name

    def set_listed(self, name: str, slot: int, values: Sequence[int]) -> None:
        """Replace a list that is an attribute in old opsets and an input in new ones."""
        if self.view.has(slot) or name not in self.view.attrs:
            self.set_input(slot, np.array(values, np.int64), name)
        else:
            self.set_attribute(name, list(values))

    def changed(self, slot: int = 0) -> list[int]:
        """The axes of an output whose size changes."""
        old, new = self.view.out_shape(slot), self.new_out[slot] or ()
        return [a for a, (o, n) in enumerate(zip(old, new, strict=True)) if o != n]

    def retarget(self, slot: int, *, fold: bool = True) -> None:
        """Correct a target shape (an input, or an attribute in old opsets) on the axes whose size changes.

        A target that is computed in the graph is multiplied by new/old on these axes only, which is right
        whatever computed it: all sizes that the graph computes are those of the original model.

        Args:
            slot: the input that is the target.
            fold: write a target that is computed but always the same as a constant.
        """
        old, new = self.view.out_shape(), self.new_out[0] or ()
        if not self.view.has(slot):
            target = [int(i) for i in self.view.attrs.get("shape", ())]
            self.set_attribute("shape", [n if t > 0 else t for t, n in zip(target, new, strict=True)])
            return
        shape_name = self.view.node.input[slot]
        constant = self.view.static.constant_values.get(shape_name)
        example = constant if constant is not None else self.view.static.example_values.get(shape_name)
        # An Expand target may have fewer axes than its output, which it is aligned with on the right.
        width = len(old) if example is None else example.size
        old, new = old[len(old) - width :], new[len(new) - width :]
        # An entry that is not the size itself (0 and -1 of a Reshape, 1 of an Expand) follows without help.
        steady = [
            o == n or (example is not None and int(example[a]) != o)
            for a, (o, n) in enumerate(zip(old, new, strict=True))
        ]
        if constant is not None and fold:
            kept = [int(t) if s else n for t, s, n in zip(constant, steady, new, strict=True)]
            if kept != constant.tolist():
                self.set_input(slot, np.array(kept, np.int64), "shape")
            return
        fractions = [
            (1, 1) if s else (n // gcd(n, o), o // gcd(n, o)) for o, n, s in zip(old, new, steady, strict=True)
        ]
        self.node.input[slot] = self.scaled(shape_name, fractions, "shape")

    def scaled(self, tensor: str, fractions: Sequence[tuple[int, int]], role: str) -> str:
        """Multiply the integer vector `tensor` by num/den per entry, in front of the node; returns the new name."""
        for op, values in (("Mul", [n for n, _ in fractions]), ("Div", [d for _, d in fractions])):
            if all(v == 1 for v in values):
                continue
            result = self.unique(f"onnxprune_{role}")
            factor = self.constant(np.array(values, np.int64), op.lower())
            self.before.append(helper.make_node(op, [tensor, factor], [result], name=result))
            tensor = result
        return tensor

    def multiply_input(self, slot: int, factor: Array) -> None:
        """Multiply an input by a number, of its type, in front of the node."""
        tensor = self.node.input[slot]
        self.node.input[slot] = scaled = self.unique(f"{tensor}_scaled")
        number = self.constant(factor, "factor")
        self.before.append(helper.make_node("Mul", [tensor, number], [scaled], name=scaled))

    def multiply_output(self, factor: Array) -> None:
        """Multiply the first output by a number, of its type, behind the node."""
        output = self.node.output[0]
        self.node.output[0] = whole = self.unique(f"{output}_unscaled")
        number = self.constant(factor, "factor")
        self.after.insert(0, helper.make_node("Mul", [whole, number], [output], name=f"{whole}_scale"))

    def replace_by(self, value: Array) -> None:
        """Put a constant in place of the node."""
        del self.node.input[:], self.node.attribute[:]
        if self.view.version < 9:  # where a Constant holds floats only
            self.node.op_type = "Identity"
            self.node.input.append(self.constant(value, "size"))
            return
        self.node.op_type = "Constant"
        self.node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))

    def gather_after(self, axis: int, index: Array) -> None:
        """Take positions `index` of `axis` of the first output, behind the node."""
        output = self.node.output[0]
        inner = self.unique(f"{output}_full")
        self.node.output[0] = inner
        name = self.constant(index.astype(np.int64), "index")
        self.after.insert(0, helper.make_node("Gather", [inner, name], [output], name=f"{inner}_gather", axis=axis))
