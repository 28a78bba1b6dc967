"""A model whose parameters are replaced one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.layers.linear import LinearLayer
from onnxprune.model import Model, Names
from onnxprune.model.graph import captured
from onnxprune.model.run_order import Course, Route
from onnxprune.model.traits import TRAITS
from onnxprune.typing import Array

# The standard norms; the fused ones add before, so that their input is not what they scale.
NORMS = {op: traits.norm for (domain, op), traits in TRAITS.items() if traits.norm and not domain}


class Parameters:
    """The parameters of a copy of a model; what is not replaced is read from where it was.

    Attributes:
        model: the copy. It sees every change.
        routes: the way of every run through it, as it was given.
        courses: the different ones of them.
        reached: what the nodes make that some run reaches.
    """

    def __init__(self, model: Model, routes: Sequence[Route] = ()) -> None:
        """Copy the graph of `model`, not the data of tensors that lie elsewhere.

        Args:
            model: the model.
            routes: where runs go through a flat one: what no run reaches does not count, and keeps what it reads.
        """
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(model.proto)
        self._given = dict(model.values)
        self._values: dict[str, Callable[[], Array]] = dict(model.values)
        self.model = replace(model, proto=self.proto, values=self._values)
        nodes = self.proto.graph.node
        self.routes = routes
        keys = dict.fromkeys(tuple(sorted(route.items())) for route in routes or [{}])
        self.courses = [Course(self.model, dict(key)) for key in keys]
        ran = [node for course in self.courses for step in course.steps for node in step.nodes]
        self._ran = list({(*node.output, "", *node.input): node for node in ran}.values())
        self.reached = frozenset(o for node in self._ran for o in node.output)
        self._uses = Counter(name for node in self._ran for name in (*node.input, *captured(node)))
        others = (node for node in nodes if node.output and self.reached.isdisjoint(node.output))
        self._elsewhere = {name for node in others for name in (*node.input, *captured(node))}
        self._moved: dict[str, str] = {}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._ran:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._constants = {o for n in nodes if n.op_type == "Constant" for o in n.output}
        self._outputs = {o.name for o in self.proto.graph.output}

    @cached_property
    def _stored(self) -> dict[str, onnx.TensorProto]:
        return {t.name: t for t in self.proto.graph.initializer}

    def descendants(self, tensors: Collection[str]) -> set[str]:
        """`tensors`, and all that is computed from them on any route."""
        return set(tensors).union(*(course.descendants(tensors) for course in self.courses))

    def ancestors(self, tensors: Collection[str]) -> set[str]:
        """What the nodes make that compute `tensors` on any route."""
        steps = (course.steps[i] for course in self.courses for i in course.ancestors(tensors))
        return {name for step in steps for name in (*step.output, *step.inner)}

    @property
    def changes(self) -> Mapping[str, Callable[[], Array]]:
        """What makes the data of the tensors that were replaced."""
        return {name: made for name, made in self._values.items() if self._given.get(name) is not made}

    def finished(self) -> Model:
        """The model with all that was replaced."""
        return replace(self.model, proto=self.proto, values=dict(self._values))

    def is_own(self, name: str, *, users: int = 1) -> bool:
        """Whether `name` is a stored tensor that one node alone uses, or so many, none of them in a body."""
        own = bool(name) and name in self._stored and self._uses[name] == users
        return own and (users == 1 or len(self.consumers(name)) == users)

    def is_stored(self, name: str) -> bool:
        """Whether `name` is a stored tensor."""
        return name in self._stored

    def is_constant(self, name: str) -> bool:
        """Whether `name` is a stored tensor, or a node made it from nothing."""
        return name in self._stored or name in self._constants

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes `name`."""
        return self._producers.get(name)

    @cached_property
    def _producers(self) -> Mapping[str, onnx.NodeProto]:
        return {name: node for node in self.proto.graph.node for name in node.output if name}

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that use `name`."""
        return self._consumers.get(name, [])

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The node that alone reads `name`; None if there are several, or the graph hands it out."""
        consumers = self._consumers.get(name, [])
        return consumers[0] if len(consumers) == self._uses[name] == 1 and name not in self._outputs else None

    def present_name(self, name: str) -> str:
        """What a stored tensor is called by now: another name once it was replaced while others keep its value."""
        return self._moved.get(name, name)

    def value(self, name: str) -> Array:
        """The present value of a stored tensor."""
        name = self.present_name(name)
        return self.model.array(self._stored[name]) if name not in self._values else self._values[name]()

    def store(self, name: str, value: Array) -> None:
        """Replace a stored tensor by one of the same shape; what no run reaches keeps the one that it had."""
        if name in self._elsewhere:
            self._elsewhere.remove(name)
            self._moved[name] = self.add(f"{name}_fitted", np.asarray(self.value(name)))
            for node in self._ran:
                node.input[:] = [self._moved[name] if i == name else i for i in node.input]
        name = self._moved.get(name, name)
        dtype = helper.tensor_dtype_to_np_dtype(self._stored[name].data_type)
        data = np.asarray(value.astype(dtype), order="C")
        self._values[name] = partial(np.asarray, data)

    def bias(self, layer: LinearLayer, outputs: int, *, users: int = 1) -> tuple[onnx.NodeProto, int] | None:
        """The node and input slot of a layer's bias, if it has one of its own of `outputs` values, or may get one.

        Args:
            layer: the layer.
            outputs: its outputs.
            users: how many nodes share the bias; it may not be missing where there are several.
        """
        node = layer.node
        if layer.bias is not None:
            name = node.input[layer.bias] if len(node.input) > layer.bias else ""
            free = not name and users == 1
            return (node, layer.bias) if free or self._is_bias(name, outputs, users) else None
        consumers = self._consumers.get(node.output[0], [])
        if len(consumers) == 1 and consumers[0].op_type == "Add" and node.output[0] not in self._outputs:
            slot = 1 - list(consumers[0].input).index(node.output[0])
            if self._is_bias(consumers[0].input[slot], outputs, users):
                return consumers[0], slot
        return None

    def _is_bias(self, name: str, outputs: int, users: int = 1) -> bool:
        return self.is_own(name, users=users) and tuple(self._stored[name].dims) == (outputs,)

    def shift(self, layer: LinearLayer, amount: Array) -> None:
        """Add `amount` [O] to a layer's bias; make one if there is none."""
        found = self.bias(layer, len(amount))
        if found is None:
            return
        node, slot = found
        if len(node.input) > slot and node.input[slot]:
            self.store(node.input[slot], self.value(node.input[slot]).astype(np.float64) + amount)
            return
        dtype = helper.tensor_dtype_to_np_dtype(self._stored[node.input[layer.weight]].data_type)
        while len(node.input) <= slot:
            node.input.append("")
        node.input[slot] = self.add(f"{node.output[0]}_bias", amount.astype(dtype))

    def add(self, wish: str, value: Array) -> str:
        """Store a new tensor that one node will use; its name, `wish` where that is free."""
        graph = self.proto.graph
        name = Names(graph).unique(wish)
        tensor = numpy_helper.from_array(value, name)
        graph.initializer.append(tensor)
        self._stored[name] = graph.initializer[-1]
        self._uses[name] = 1
        if self.proto.ir_version < 4:  # where every initializer must also be an input
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, value.shape))
        return name

    def scale_and_bias(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """The scale and the bias ("" for none) of a norm, if they are its own lists of channels."""
        norm = NORMS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if norm is None:
            return None
        scale, bias = (node.input[s] if s is not None and s < len(node.input) else "" for s in (norm.scale, norm.bias))
        own = self.is_own(scale) and len(self._stored[scale].dims) == 1
        return (scale, bias) if own and (not bias or self._is_bias(bias, self._stored[scale].dims[0])) else None
