"""Sequences and optionals of constant structure, laid out as the tensors that they hold, and put back.

A sequence whose elements are known one by one (a split of constant sizes, a list of tensors) and that is read at
constant places is a bundle of tensors. For tracing, masking and rewriting, the nodes that make and read such sequences
become Split, Concat and Identity. Every node of the flat graph that stands for others remembers them. Afterwards they
come back as they were; only where a cut changes a node that stands for them (the sizes of a split), the standard
operators stay.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from onnxprune.model.control_flow import attributes
from onnxprune.model.graph import constant_value
from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.protos import bodies, copy_without, keep
from onnxprune.model.shapes.infer import StaticInfo, infer

MARK = "onnxprune.sequence"
# Elements that are laid out one by one.
LONGEST = 1 << 10

Elements = tuple[str, ...]


def flat_sequences(model: Model) -> Model:
    """Lay out the sequences of constant structure of a model whose bodies are flat.

    Returns:
        The flat model; the same object if it has no such sequence.
    """
    graph = model.proto.graph
    if not any(_is_about_sequences(node) for node in graph.node):
        return model
    nodes = _Layout(model).run()
    if nodes is None:
        return model
    proto = copy_without(model.proto, "node")
    proto.graph.node.extend(nodes)
    return replace(model, proto=proto)


def put_back(graph: GraphProto) -> None:
    """Put sequences back where no node that stands for them has changed; the others stay tensors."""
    marked = [(node, _mark_of(node)) for node in graph.node]
    if all(mark is None for _, mark in marked):
        return
    changed = {mark.bundle for node, mark in marked if mark is not None and _bare(node) != mark.flat}
    made: list[NodeProto] = []
    for node, mark in marked:
        if mark is None:
            made.append(node)
        elif mark.bundle in changed:
            made.append(NodeProto.FromString(_bare(node)))
        else:
            made.extend(NodeProto.FromString(original) for original in mark.originals)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in made]
    del graph.node[:]
    graph.node.extend(nodes)


# --- what a node of the flat graph remembers -----------------------------------------------------------------


@dataclass(frozen=True)
class _Mark:
    """What a node of the flat graph stands for.

    Attributes:
        bundle: number of the sequences that are put back together.
        flat: the node as it was laid out.
        originals: the nodes that it stands for; none if another one stands for them.
    """

    bundle: int
    flat: bytes
    originals: tuple[bytes, ...]


def _marked(node: NodeProto, bundle: int, originals: Sequence[NodeProto]) -> NodeProto:
    new = NodeProto()
    new.CopyFrom(node)
    parts = [node.SerializeToString(), *(original.SerializeToString() for original in originals)]
    entry = new.metadata_props.add()
    entry.key, entry.value = MARK, json.dumps([bundle, *(base64.b64encode(part).decode() for part in parts)])
    return new


def _mark_of(node: NodeProto) -> _Mark | None:
    for entry in node.metadata_props:
        if entry.key == MARK:
            bundle, flat, *originals = json.loads(entry.value)
            return _Mark(bundle, base64.b64decode(flat), tuple(map(base64.b64decode, originals)))
    return None


def _bare(node: NodeProto) -> bytes:
    """A node without its mark."""
    bare = NodeProto()
    bare.CopyFrom(node)
    keep(bare.metadata_props, lambda entry: entry.key != MARK)
    return bare.SerializeToString()


# --- laying out ----------------------------------------------------------------------------------------------


class _Unknown(Exception):
    """The structure of a sequence is not known before anything runs."""


@dataclass
class _Layout:
    """Finds what every sequence holds, node by node, and writes the nodes that stand for those of sequences.

    Attributes:
        model: the model, flat.
        known: sequence or optional -> the tensors that it holds.
        flat: index of a node -> the nodes that stand for it.
        bundle: sequence -> another of the same bundle; nodes that share a sequence share a bundle.
        kept: sequences whose bundle stays as it is.
        single: optionals that hold a tensor, no sequence.
    """

    model: Model
    known: dict[str, Elements] = field(default_factory=dict)
    flat: dict[int, list[NodeProto]] = field(default_factory=dict)
    bundle: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    single: set[str] = field(default_factory=set)

    def run(self) -> list[NodeProto] | None:
        """The nodes of the flat graph; None if no sequence can be laid out."""
        graph = self.model.proto.graph
        for index, node in enumerate(graph.node):
            self._node(index, node)
        self.kept.update(value.name for value in graph.output)
        kept = {self._root(name) for name in self.kept}
        roots = {index: self._root(self._sequences(graph.node[index])[0]) for index in self.flat}
        # A bundle that no node of the flat graph stands for, which nothing reads, stays.
        laid = {roots[index] for index, nodes in self.flat.items() if nodes} - kept
        if not laid:
            return None
        return list(self._nodes(roots, sorted(laid)))

    def _nodes(self, roots: Mapping[int, str], laid: Sequence[str]) -> Iterator[NodeProto]:
        for index, node in enumerate(self.model.proto.graph.node):
            if roots.get(index) not in laid:
                yield node
                continue
            for place, new in enumerate(self.flat[index] or [self._stand_in()]):
                yield _marked(new, laid.index(roots[index]), [] if place else [node])

    def _stand_in(self) -> NodeProto:
        """What keeps the place of a node that no node of the flat graph stands for; nothing reads it."""
        name = self.names.unique("sequence")
        return helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(np.array(0, np.int64)))

    def _node(self, index: int, node: NodeProto) -> None:
        names = self._sequences(node)
        if not names:
            return
        for name in names:
            self.bundle.setdefault(name, name)
            self.bundle[self._root(name)] = self._root(names[0])
        lay = _LAYERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if lay is None:
                raise _Unknown
            self.flat[index] = lay(self, node)
        except (_Unknown, LookupError, ValueError, TypeError):
            self.kept.update(names)

    def _sequences(self, node: NodeProto) -> list[str]:
        """The names of sequences and optionals around a node, bodies that it has included."""
        names = [name for name in node.input if name in self.bundle]
        opened = node.op_type == "OptionalGetElement" and not self.single.issuperset(names)
        alias = names and (opened or node.op_type == "Identity")
        if alias or (_is_about_sequences(node) and node.op_type not in _TO_TENSOR):
            names += list(node.output)
        return names + [name for body in bodies(node) for name in _mentioned(body) if name in self.bundle]

    def _root(self, name: str) -> str:
        while (above := self.bundle.get(name, name)) != name:
            name = above
        return name

    # --- what is known ---

    @cached_property
    def static(self) -> StaticInfo:
        """Static shapes and values; asked for only where a split needs the size of its axis, or a place is computed."""
        return infer(self.model)

    @cached_property
    def names(self) -> Names:
        """Names for the tensors that are laid out."""
        return Names(self.model.proto.graph)

    @cached_property
    def _constants(self) -> Mapping[str, NodeProto]:
        nodes = self.model.proto.graph.node
        return {node.output[0]: node for node in nodes if node.op_type == "Constant" and not node.domain}

    def constant(self, name: str) -> np.ndarray:
        """The value of an integer tensor that depends on nothing that the run alone knows."""
        if name in self.model.initializers and name not in self.model.overridable:
            return np.asarray(self.model.array(name))
        made = self._constants.get(name)
        value = constant_value(self.model, made) if made else self.static.constant_values.get(name)
        if value is None:
            raise _Unknown
        return value

    def place(self, node: NodeProto, slot: int, count: int, default: int) -> int:
        """The place that an input says, counted from the front."""
        if slot >= len(node.input) or not node.input[slot]:
            return default
        place = int(self.constant(node.input[slot]).item())
        if not -count <= place <= count:
            raise _Unknown
        return place + count if place < 0 else place

    def length(self, tensor: str, axis: int) -> int:
        """The static size of an axis."""
        shape = self.static.shapes[tensor]
        axis = range(len(shape))[axis]
        if axis in self.static.dynamic.get(tensor, ()):
            raise _Unknown
        return shape[axis]

    def version(self) -> int:
        """The opset version of the standard operators."""
        return max(o.version for o in self.model.proto.opset_import if o.domain in ("", "ai.onnx"))

    def listed(self, op: str, node: NodeProto, output: str, name: str, values: Sequence[int]) -> list[NodeProto]:
        """An operator on input 0 of `node` whose list is an attribute before opset 13, and an input from there on."""
        if self.version() < 13:
            made = helper.make_node(op, node.input[:1], [output], name=output)
            made.attribute.append(helper.make_attribute(name, list(values)))
            return [made]
        given = self.names.unique(f"{output}_{name}")
        value = numpy_helper.from_array(np.array(values, np.int64))
        constant = helper.make_node("Constant", [], [given], name=given, value=value)
        return [constant, helper.make_node(op, [*node.input[:1], given], [output], name=output)]


Layer = Callable[[_Layout, NodeProto], list[NodeProto]]


def _construct(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    layout.known[node.output[0]] = tuple(node.input)
    return []


def _insert(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    held = layout.known[node.input[0]]
    place = layout.place(node, 2, len(held), len(held))
    layout.known[node.output[0]] = (*held[:place], node.input[1], *held[place:])
    return []


def _erase(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    held = layout.known[node.input[0]]
    place = range(len(held))[layout.place(node, 1, len(held), len(held) - 1)]
    layout.known[node.output[0]] = (*held[:place], *held[place + 1 :])
    return []


def _optional(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    """An optional around a sequence is that sequence, one around a tensor is a sequence of one."""
    given, made = node.input[0], node.output[0]
    if given not in layout.known or given in layout.single:
        layout.single.add(made)
    layout.known[made] = layout.known.get(given, (given,))
    return []


def _get(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    held = layout.known[node.input[0]]
    if node.input[0] in layout.single:
        return [helper.make_node("Identity", held, node.output, name=node.name)]
    layout.known[node.output[0]] = held
    return []


def _at(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    held = layout.known[node.input[0]]
    element = held[layout.place(node, 1, len(held), 0)]
    return [helper.make_node("Identity", [element], node.output, name=node.name)]


def _number(value: np.ndarray) -> Callable[[NodeProto], NodeProto]:
    made = numpy_helper.from_array(value)
    return lambda node: helper.make_node("Constant", [], node.output, name=node.name, value=made)


def _length(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    return [_number(np.array(len(layout.known[node.input[0]]), np.int64))(node)]


def _has(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    _ = layout.known[node.input[0]]
    return [_number(np.array(True))(node)]


def _split(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    attrs = attributes(node)
    axis, keeps = int(attrs.get("axis", 0)), bool(attrs.get("keepdims", 1))
    given = layout.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    if given is not None and given.ndim:
        sizes = [int(n) for n in given]
    else:
        chunk, length = 1 if given is None else int(given), layout.length(node.input[0], axis)
        sizes = [min(chunk, length - start) for start in range(0, length, chunk)]
    if not 0 < len(sizes) <= LONGEST or min(sizes) < 1:
        raise _Unknown
    made = [layout.names.unique(f"{node.output[0]}_{i}") for i in range(len(sizes))]
    layout.known[node.output[0]] = tuple(made)
    squeezed = given is None and not keeps
    parts = [layout.names.unique(f"{name}_kept") for name in made] if squeezed else made
    *constants, split = layout.listed("Split", node, parts[0], "split", sizes)
    split.output[:] = parts
    split.attribute.append(helper.make_attribute("axis", axis))
    nodes = [*constants, split]
    for part, name in zip(parts, made, strict=True) if squeezed else ():
        nodes += layout.listed("Squeeze", NodeProto(input=[part]), name, "axes", [axis])
    return nodes


def _concat(layout: _Layout, node: NodeProto) -> list[NodeProto]:
    attrs, held = attributes(node), layout.known[node.input[0]]
    nodes: list[NodeProto] = []
    if attrs.get("new_axis", 0):
        made = [layout.names.unique(f"{node.output[0]}_{i}") for i in range(len(held))]
        for element, name in zip(held, made, strict=True):
            nodes += layout.listed("Unsqueeze", NodeProto(input=[element]), name, "axes", [attrs["axis"]])
        held = tuple(made)
    if not held:
        raise _Unknown
    return [*nodes, helper.make_node("Concat", held, node.output, name=node.name, axis=attrs["axis"])]


# Operators on sequences that make tensors.
_TO_TENSOR: Mapping[str, Layer] = {
    "SequenceAt": _at,
    "SequenceLength": _length,
    "ConcatFromSequence": _concat,
    "OptionalHasElement": _has,
    "OptionalGetElement": _get,
}
_LAYERS: Mapping[str, Layer] = {
    **_TO_TENSOR,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SplitToSequence": _split,
    "Optional": _optional,
    "Identity": _optional,
}


def _is_about_sequences(node: NodeProto) -> bool:
    return node.op_type in _LAYERS and node.op_type != "Identity" and node.domain in ("", "ai.onnx")


def _mentioned(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for body in bodies(node):
            yield from _mentioned(body)
    yield from (value.name for value in graph.output)
