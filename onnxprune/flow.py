"""Bodies of If and Loop, laid out flat for tracing and rewriting, and put back.

In the flat graph the nodes of a body stand between a `Begin` (whose outputs are what the body is given) and the node
that the body belongs to, which loses its graphs and gets the outputs of its bodies as inputs. So labels, shapes, masks
and edits go through bodies as through any other part of the graph, and a weight is one tensor in whatever scopes it is
used. Weights of bodies are among the initializers meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnxprune.model import Model
from onnxprune.protos import copy_except, keep

DOMAIN = "onnxprune.flow"
BEGIN = "Begin"
# Where a body is: (first output of the node, attribute) from the outermost node on.
Path = tuple[tuple[str, str], ...]
FLAT = frozenset(("If", "Loop"))


def is_begin(node: NodeProto) -> bool:
    """Whether `node` stands in front of a body."""
    return node.domain == DOMAIN


def is_flat(node: NodeProto) -> bool:
    """Whether `node` had bodies, which stand in front of it now."""
    return node.op_type in FLAT and any(a.name == "bodies" for a in node.attribute)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def trips(node: NodeProto) -> int:
    """How many values a flat Loop carries from step to step."""
    return int(next(a.i for a in node.attribute if a.name == "states"))


def branches(node: NodeProto) -> dict[str, range]:
    """The slots of a flat If that hold the outputs of each of its branches."""
    names = next(a.strings for a in node.attribute if a.name == "bodies")
    count = (len(node.input) - 1) // len(names)
    return {name.decode(): range(1 + i * count, 1 + (i + 1) * count) for i, name in enumerate(names)}


# --- flat ------------------------------------------------------------------------------------------------


def flattened(model: Model) -> Model:
    """`model` with its bodies laid out; the same object if it has none."""
    if not any(_has_flow(node) for node in model.proto.graph.node):
        return model
    proto = ModelProto()
    copy_except(model.proto, proto, "graph")
    copy_except(model.proto.graph, proto.graph, "node")
    work = _Flattening(proto.graph, _defined(model.proto.graph))
    work.nodes(model.proto.graph, {}, ())
    return replace(model, proto=proto)


def _has_flow(node: NodeProto) -> bool:
    return node.op_type in FLAT and node.domain in ("", "ai.onnx") and any(True for _ in bodies(node))


def _defined(graph: GraphProto) -> set[str]:
    """The names that a graph defines, without those of its bodies."""
    names = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    names |= {s.values.name for s in graph.sparse_initializer}
    return names | {o for n in graph.node for o in n.output if o}


@dataclass
class _Flattening:
    graph: GraphProto
    taken: set[str]
    count: int = 0

    def unique(self, stem: str) -> str:
        name = stem
        while name in self.taken:
            self.count += 1
            name = f"{stem}__{self.count}"
        self.taken.add(name)
        return name

    def nodes(self, graph: GraphProto, renamed: Mapping[str, str], path: Path) -> None:
        for node in graph.node:
            if _has_flow(node):
                self.flow(node, renamed, path)
            else:
                new = self.graph.node.add()
                new.CopyFrom(node)
                _rename(new, renamed)

    def flow(self, node: NodeProto, renamed: Mapping[str, str], path: Path) -> None:
        """A node with bodies: every body with its `Begin`, then the node."""
        bare = NodeProto()
        bare.CopyFrom(node)
        given = [renamed.get(i, i) for i in node.input]
        outer = [renamed.get(o, o) for o in node.output]
        inputs, names = list(given[:1]), []
        for attribute in bare.attribute:
            if attribute.type == AttributeProto.GRAPH:
                names.append(attribute.name)
                begun, ended = self.body(attribute, given, renamed, (*path, (node.output[0], attribute.name)))
                inputs += [*begun[2:], *ended] if node.op_type == "Loop" else ended
                attribute.g.Clear()
        flat = helper.make_node(
            node.op_type,
            inputs,
            outer,
            name=node.name,
            domain=node.domain,
            bodies=names,
            node=bare.SerializeToString(),
            states=max(0, len(node.input) - 2),
            path=json.dumps(path),
        )
        self.graph.node.append(flat)

    def body(
        self, attribute: AttributeProto, given: list[str], renamed: Mapping[str, str], path: Path
    ) -> tuple[list[str], list[str]]:
        """Lay a body out; the names of what it is given and of what it returns."""
        graph = attribute.g
        own = {name: self.unique(name) for name in sorted(_defined(graph))}
        inner = dict(renamed) | own
        begun = [inner[v.name] for v in graph.input] or [self.unique(f"{attribute.name}_begins")]
        skeleton = GraphProto()
        copy_except(graph, skeleton, "node", "initializer", "sparse_initializer")
        stored = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
        original = {flat: name for name, flat in own.items() if flat != name}
        begin = helper.make_node(BEGIN, given, begun, name=attribute.name, domain=DOMAIN)
        begin.attribute.append(helper.make_attribute("body", skeleton.SerializeToString()))
        begin.attribute.append(
            helper.make_attribute("names", json.dumps({"original": original, "stored": [own[s] for s in stored]}))
        )
        self.graph.node.append(begin)
        for tensor in graph.initializer:
            self.graph.initializer.add().CopyFrom(tensor)
            self.graph.initializer[-1].name = own[tensor.name]
        for sparse in graph.sparse_initializer:
            self.graph.sparse_initializer.add().CopyFrom(sparse)
            self.graph.sparse_initializer[-1].values.name = own[sparse.values.name]
        for info in (*graph.value_info, *graph.input, *graph.output):
            self.graph.value_info.add().CopyFrom(info)
            self.graph.value_info[-1].name = inner.get(info.name, info.name)
        self.nodes(graph, inner, path)
        return begun, [inner.get(o.name, o.name) for o in graph.output]


def _rename(node: NodeProto, renamed: Mapping[str, str]) -> None:
    """Other names for the tensors of a node, in its bodies too."""
    if not renamed:
        return
    node.input[:] = [renamed.get(i, i) for i in node.input]
    node.output[:] = [renamed.get(o, o) for o in node.output]
    for body in bodies(node):
        for inner in body.node:
            _rename(inner, renamed)
        for value in body.output:
            value.name = renamed.get(value.name, value.name)


def dead(graph: GraphProto, taken: Callable[[NodeProto], str]) -> frozenset[str]:
    """First outputs of the nodes in those branches of a flat graph that are never taken.

    Args:
        graph: the flat graph.
        taken: the branch that a flat If always takes; empty if either.
    """
    stack: list[list[str]] = []
    found: set[str] = set()
    for node in graph.node:
        if is_begin(node):
            stack.append([])
        if stack and node.output:
            stack[-1].append(node.output[0])
        if is_flat(node):
            names = list(branches(node)) if node.op_type == "If" else ["body"]
            frames = stack[-len(names) :]
            del stack[-len(names) :]
            one = taken(node) if node.op_type == "If" else ""
            mine = frames[-1].pop()
            for name, frame in zip(names, frames, strict=True):
                if one and name != one:
                    found.update(frame)
            if stack:
                stack[-1] += [*(x for frame in frames for x in frame), mine]
    return frozenset(found)


# --- one branch at a time --------------------------------------------------------------------------------


def open_branches(graph: GraphProto, taken: Callable[[NodeProto], str]) -> list[Path]:
    """Where the branches of a flat graph are that may be taken or not."""
    never = dead(graph, taken)
    found: list[Path] = []
    for node in graph.node:
        if node.op_type == "If" and is_flat(node) and not taken(node) and node.output[0] not in never:
            path = json.loads(next(a.s for a in node.attribute if a.name == "path"))
            made = NodeProto.FromString(next(a.s for a in node.attribute if a.name == "node"))
            found += [(*((o, a) for o, a in path), (made.output[0], branch)) for branch in branches(node)]
    return found


def forced(model: Model, path: Path) -> Model | None:
    """`model` with the conditions changed so that the branch at `path` is taken; None if it is not there."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    for output, name in path:
        node = next((n for n in graph.node if n.output and n.output[0] == output), None)
        attribute = next((a for a in node.attribute if a.name == name), None) if node is not None else None
        if node is None or attribute is None:
            return None
        if node.op_type == "If":
            node.input[0] = _decided(proto, value=name == "then_branch")
        graph = attribute.g
    return replace(model, proto=proto)


def _decided(proto: ModelProto, *, value: bool) -> str:
    name = f"onnxprune_{'then' if value else 'else'}"
    if all(t.name != name for t in proto.graph.initializer):
        proto.graph.initializer.append(helper.make_tensor(name, TensorProto.BOOL, (), [value]))
        if proto.ir_version < 4:
            proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, ()))
    return name


# --- and back --------------------------------------------------------------------------------------------


@dataclass
class _Frame:
    """A body that is being put back."""

    begin: NodeProto
    nodes: list[NodeProto] = field(default_factory=list)


def nest(graph: GraphProto) -> None:
    """Put the bodies of a flat graph back where they were."""
    if not any(is_begin(node) for node in graph.node):
        return
    infos = {info.name: info for info in graph.value_info}
    home: set[str] = set()
    stack = [_Frame(NodeProto())]
    for node in graph.node:
        if is_begin(node):
            stack.append(_Frame(node))
        elif is_flat(node):
            count = sum(len(a.strings) for a in node.attribute if a.name == "bodies")
            frames = stack[-count:]
            del stack[-count:]
            stack[-1].nodes.append(_whole(graph, node, frames, infos, home))
        else:
            stack[-1].nodes.append(node)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in stack[0].nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    keep(graph.initializer, lambda t: t.name not in home)
    keep(graph.sparse_initializer, lambda s: s.values.name not in home)
    known = _defined(graph)
    keep(graph.value_info, lambda info: info.name in known)


def _whole(
    graph: GraphProto,
    node: NodeProto,
    frames: list[_Frame],
    infos: Mapping[str, onnx.ValueInfoProto],
    home: set[str],
) -> NodeProto:
    """A node with its bodies as they are now; notes in `home` which weights went back."""
    made = NodeProto.FromString(next(a.s for a in node.attribute if a.name == "node"))
    made.input[:] = frames[0].begin.input
    made.output[:] = node.output
    places = [a for a in made.attribute if a.type == AttributeProto.GRAPH]
    first = 1 + next(a.i for a in node.attribute if a.name == "states")
    for attribute, frame in zip(places, frames, strict=True):
        parts = {a.name: a.s for a in frame.begin.attribute}
        names = json.loads(parts["names"])
        body = GraphProto.FromString(parts["body"])
        count = len(body.output)
        ends = node.input[first : first + count]
        first += count
        # What stays outside keeps its name, and nothing takes that of what does.
        outside = {t.name for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}
        original = {new: old for new, old in names["original"].items() if not {new, old} & outside}
        flat = {name: new for new, name in original.items()}
        for value, name in zip(body.output, ends, strict=True):
            value.name = name
        _refresh(body, flat, infos)
        _stored(graph, body, set(names["stored"]), home)
        for inner in frame.nodes:
            body.node.add().CopyFrom(inner)
        for inner in body.node:
            _rename(inner, original)
        for items in (body.output, body.initializer):
            for item in items:
                item.name = original.get(item.name, item.name)
        for sparse in body.sparse_initializer:
            sparse.values.name = original.get(sparse.values.name, sparse.values.name)
        attribute.g.CopyFrom(body)
    return made


def _refresh(body: GraphProto, flat: Mapping[str, str], infos: Mapping[str, onnx.ValueInfoProto]) -> None:
    """The types that the flat graph notes by now; notes on what is in between go where it has none."""
    keep(body.value_info, lambda info: flat.get(info.name, info.name) in infos)
    for values in (body.value_info, body.input, body.output):
        for value in values:
            known = infos.get(flat.get(value.name, value.name))
            if known is not None:
                value.type.CopyFrom(known.type)


def _stored(graph: GraphProto, body: GraphProto, names: set[str], home: set[str]) -> None:
    """The weights of a body; those whose data lies in another file stay in the outer graph, where they are as good."""
    for tensor in graph.initializer:
        if tensor.name in names and tensor.data_location != TensorProto.EXTERNAL:
            body.initializer.add().CopyFrom(tensor)
            home.add(tensor.name)
    for sparse in graph.sparse_initializer:
        if sparse.values.name in names:
            body.sparse_initializer.add().CopyFrom(sparse)
            home.add(sparse.values.name)
