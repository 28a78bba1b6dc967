"""Constants folded into the contractions beside them, and contractions merged, so that the function stays the same.

A contraction is y = x W + b. A node behind it that computes s y + t makes it x (W s) + (s b + t); one in front of it,
that gives s x + t, makes it x (s W) + (b + t W). Two contractions in a row, (x V + c) W + b, are x (V W) + (c W + b),
which is taken where it has fewer numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx

from onnxprune.layers import Affine, Convolution, Parameters, affine_of, linear_layer
from onnxprune.model import Model
from onnxprune.model.graph import first_output
from onnxprune.model.protos import keep
from onnxprune.rewriting.contraction import Contraction, ContractionBias, merged_product, stored_bias, taken_in
from onnxprune.rewriting.rewrite import nested
from onnxprune.tracing import Groups, NodeView, trace
from onnxprune.typing import Array

# Rounds; every one of them takes out a node at least.
MOST_ROUNDS = 100


@dataclass(frozen=True)
class FoldedNode:
    """A node that went.

    Attributes:
        kind: "constant" for a node that scales and shifts, "product" for a contraction.
        node: its name.
        into: the contraction that does its work.
    """

    kind: str
    node: str
    into: str


def folded(model: Model, sizes: Mapping[str, int] | None = None) -> tuple[Model, tuple[FoldedNode, ...]]:
    """Fold constants into contractions and merge contractions, again and again until nothing changes.

    Args:
        model: the model.
        sizes: numbers for symbolic dims.

    Returns:
        The model, itself where nothing is to be done, and what went.
    """
    done: list[FoldedNode] = []
    for _ in range(MOST_ROUNDS):
        folding = _Folding(trace(model, sizes=sizes))
        folding.run()
        if not folding.done:
            break
        model = nested(folding.parameters.finished())
        done += folding.done
    return model, tuple(done)


@dataclass
class _Folding:
    """One round: no node takes part in two changes.

    Attributes:
        groups: the traced model.
        done: what went.
        touched: first outputs of the nodes that took part.
    """

    groups: Groups
    done: list[FoldedNode] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)

    @cached_property
    def parameters(self) -> Parameters:
        """A copy of the flat model, in which nodes and weights change."""
        return Parameters(self.groups.tracing.model)

    @cached_property
    def _nodes(self) -> Mapping[str, onnx.NodeProto]:
        """First output in the trace -> the node of the copy."""
        return {name: node for node in self.parameters.proto.graph.node if (name := first_output(node))}

    @cached_property
    def _views(self) -> Mapping[str, NodeView]:
        return {name: view for view, _ in self.groups.tracing.views if (name := first_output(view.node))}

    def run(self) -> None:
        """Change whatever can be changed in one round."""
        for view, rule in self.groups.tracing.views:
            if rule is None or self._is_touched(view.node):
                continue
            found = self._contraction(view)
            if found is not None and not self._is_touched(found.end):
                _ = self._fold_behind(found) or self._merge(found)
            elif found is None and (affine := affine_of(self.groups.tracing, view)) is not None:
                self._fold_in_front(view, affine)
        keep(self.parameters.proto.graph.node, lambda node: any(node.output))

    # --- what there is --------------------------------------------------------------------------------------

    def _is_touched(self, *nodes: onnx.NodeProto) -> bool:
        return any(first_output(node) in self.touched for node in nodes)

    def _only_consumer(self, tensor: str) -> NodeView | None:
        """The node that alone reads a tensor."""
        consumers = self.groups.tracing.consumers(tensor)
        if len(consumers) != 1 or self.groups.tracing.is_output(tensor) or self._is_touched(consumers[0]):
            return None
        return self._views.get(first_output(consumers[0]))

    def _is_own(self, name: str) -> bool:
        """Whether a tensor is stored for one node alone."""
        tracing = self.groups.tracing
        kept = tracing.is_overridable(name) or tracing.is_output(name)
        return self.parameters.is_stored(name) and len(tracing.consumers(name)) == 1 and not kept

    def _contraction(self, view: NodeView) -> Contraction | None:
        layer = linear_layer(view, self._nodes.get(first_output(view.node)))
        if layer is None or not self._is_own(name := layer.node.input[layer.weight]):
            return None
        value = self.parameters.value(name)
        found = Contraction(view, layer, layer.as_matrix(value.astype(np.float64)), value.shape, None)
        if layer.bias is None and view.node.op_type == "Gemm" and view.has(2):
            return None
        if layer.bias is not None and view.has(layer.bias):
            bias = self._bias_inside(found, view, layer.bias)
            return None if bias is None else replace(found, bias=bias)
        if layer.bias is not None:
            return replace(found, bias=ContractionBias(layer.node, layer.bias, np.zeros(found.outputs), False))
        return replace(found, bias=self._bias_behind(found))

    def _bias_inside(self, of: Contraction, view: NodeView, slot: int) -> ContractionBias | None:
        """The bias that the node itself adds; None where it is not stored, or differs along other axes."""
        tracing, name = self.groups.tracing, view.node.input[slot]
        if not view.is_weight(slot) or tracing.is_overridable(name) or (value := tracing.stored_value(name)) is None:
            return None
        line = value.reshape(-1) if isinstance(of.layer, Convolution) else of.line(value)
        return None if line is None else ContractionBias(of.layer.node, slot, line.astype(np.float64), True)

    def _bias_behind(self, of: Contraction) -> ContractionBias | None:
        """The constant that a node behind a contraction adds, if nothing else reads that."""
        consumer = self._only_consumer(of.layer.node.output[0])
        affine = (
            affine_of(self.groups.tracing, consumer)
            if consumer is not None and consumer.node.op_type == "Add"
            else None
        )
        line = None if affine is None else of.line(affine.shift)
        if consumer is None or line is None:
            return None
        slot = 1 - list(consumer.node.input).index(of.layer.node.output[0])
        return ContractionBias(self._nodes[first_output(consumer.node)], slot, line, True)

    # --- changes ----------------------------------------------------------------------------------------------

    def _fold_behind(self, of: Contraction) -> bool:
        """Let a contraction do what the node behind it does; whether there is one."""
        made = of.end.output[0]
        consumer = self._only_consumer(made)
        affine = affine_of(self.groups.tracing, consumer) if consumer is not None else None
        if consumer is None or affine is None or affine.input != made:
            return False
        scale, shift = of.line(affine.scale), of.line(affine.shift)
        if scale is None or shift is None:
            return False
        weight = of.weight * scale.reshape(len(of.weight), 1, -1)
        node = self._nodes[first_output(consumer.node)]
        if of.bias is None and shift.any():
            return self._leave_shift(of, node, weight, shift)
        values = np.zeros(of.outputs) if of.bias is None else of.bias.values * scale + shift
        if not self._put(of, weight, values, affine.elements):
            return False
        of.end.output[0] = node.output[0]
        self._note("constant", consumer, of)
        del node.output[:]
        return True

    def _leave_shift(self, of: Contraction, node: onnx.NodeProto, weight: Array, shift: Array) -> bool:
        """Behind a contraction that adds nothing, leave an Add where a node scaled and shifted."""
        if node.op_type != "BatchNormalization" or not self._put(of, weight, np.zeros(of.outputs), 0):
            return False
        name = self.parameters.add(f"{node.output[0]}_shift", self._cast(of, of.layer.laid_out(shift, of.shape)))
        node.op_type = "Add"
        del node.attribute[:]
        node.input[:] = [node.input[0], name]
        self.touched |= {first_output(node), first_output(of.view.node)}
        self.done.append(FoldedNode("constant", node.name or node.output[0], of.view.name))
        return True

    def _fold_in_front(self, view: NodeView, affine: Affine) -> None:
        """Let all contractions that read what a node scales and shifts do it themselves.

        Of other nodes than BatchNormalization only those that a graph input enters: a runtime knows activations and
        norms by the constants at their ends.
        """
        tracing, made = self.groups.tracing, view.node.output[0]
        shapes = tracing.static.shapes
        if tracing.is_output(made) or shapes.get(affine.input) != shapes.get(made):
            return
        if view.node.op_type != "BatchNormalization" and not self._enters(affine.input):
            return
        consumers = [self._views.get(first_output(node)) for node in tracing.consumers(made)]
        found = [self._contraction(consumer) if consumer is not None else None for consumer in consumers]
        changes = []
        for of in found:
            change = None if of is None or self._is_touched(of.view.node, of.end) else taken_in(of, made, affine)
            if of is None or change is None:
                return
            changes.append((of, *change))
        room = affine.elements
        for of, _, values in changes:
            room -= of.outputs if of.bias is not None and not of.bias.is_stored and values.any() else 0
        if room < 0 or not all(self._fits(of, weight, values) for of, weight, values in changes):
            return
        for of, weight, values in changes:
            self._put(of, weight, values, of.outputs)
            of.layer.node.input[1 - of.layer.weight] = affine.input
            self.touched |= {first_output(of.view.node), first_output(of.end)}
        if changes:
            self._note("constant", view, changes[0][0])
            del self._nodes[first_output(view.node)].output[:]

    def _enters(self, tensor: str) -> bool:
        """Whether a tensor is a graph input, perhaps scaled and shifted."""
        view = self._views.get(tensor)
        while view is not None and (affine := affine_of(self.groups.tracing, view)) is not None:
            tensor, view = affine.input, self._views.get(affine.input)
        return view is None and not self.groups.tracing.is_weight(tensor)

    def _merge(self, first: Contraction) -> bool:
        """Merge a contraction with the one that alone reads it, where that has fewer numbers."""
        consumer = self._only_consumer(first.end.output[0])
        second = self._contraction(consumer) if consumer is not None else None
        if consumer is None or second is None or self._is_touched(second.end):
            return False
        if second.layer.input != first.end.output[0] or type(first.layer) is not type(second.layer):
            return False
        merged = merged_product(first, second)
        if merged is None:
            return False
        kept, shape, weight, values = merged
        before = first.weight.size + second.weight.size + sum(stored_bias(c) for c in (first, second))
        if weight.size + (len(values) if values.any() else 0) >= before or not self._fits(kept, weight, values):
            return False
        layer = kept.layer
        stored = self._cast(kept, layer.tensor(weight, shape))
        layer.node.input[layer.weight] = self.parameters.add(f"{layer.node.input[layer.weight]}_merged", stored)
        self._put_bias(kept, values)
        made, gone = second.end.output[0], first if kept is second else second
        self._note("product", gone.view, kept)
        self.touched |= {first_output(first.end), first_output(gone.end)}
        for node in (gone.layer.node, gone.end):
            del node.output[:]
        layer.node.input[1 - layer.weight] = first.layer.input
        kept.end.output[0] = made
        return True

    # --- storing ----------------------------------------------------------------------------------------------

    def _note(self, kind: str, gone: NodeView, into: Contraction) -> None:
        self.done.append(FoldedNode(kind, gone.name, into.view.name))
        self.touched |= {first_output(node) for node in (gone.node, into.view.node, into.end)}

    def _cast(self, of: Contraction, values: Array) -> Array:
        return values.astype(self.parameters.value(of.layer.node.input[of.layer.weight]).dtype)

    def _fits(self, of: Contraction, *values: Array) -> bool:
        """Whether numbers are finite in the type of the weight."""
        with np.errstate(over="ignore"):
            return all(bool(np.isfinite(self._cast(of, value)).all()) for value in values)

    def _put(self, of: Contraction, weight: Array, values: Array, room: int) -> bool:
        """Store a weight and a bias, which may take so many elements more; whether that is possible."""
        grows = of.bias is not None and not of.bias.is_stored and values.any() and of.outputs > room
        if grows or not self._fits(of, weight, values):
            return False
        name = of.layer.node.input[of.layer.weight]
        self.parameters.store(name, of.layer.tensor(weight, of.shape))
        self._put_bias(of, values)
        return True

    def _put_bias(self, of: Contraction, values: Array) -> None:
        bias = of.bias
        if bias is None or not (bias.is_stored or values.any()):
            return
        node, slot = bias.node, bias.slot
        laid = of.layer.laid_out(values, of.shape)
        name = node.input[slot] if bias.is_stored else ""
        if name and self._is_own(name) and self.parameters.value(name).size == values.size:
            self.parameters.store(name, laid.reshape(self.parameters.value(name).shape))
            return
        while len(node.input) <= slot:
            node.input.append("")
        own = laid.reshape(-1) if node is of.layer.node else laid
        node.input[slot] = self.parameters.add(f"{first_output(of.view.node)}_bias", self._cast(of, own))
