"""Bodies of If, Loop and Scan, laid out flat for tracing and rewriting, and put back.

In the flat graph the nodes of a body stand between a `BodyStart` (its outputs are what the body is given) and the node
that the body belongs to, which loses its graphs and gets the outputs of its bodies as inputs. So labels, shapes, masks
and edits go through bodies as through any other part of the graph, and a weight is one tensor in whatever scopes it is
used. Weights of bodies are among the initializers meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.model import control_flow
from onnxprune.model.control_flow import FLAT, Path, attributes, body_path, branches, is_body_start, is_flat
from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.protos import bodies, copy_except, copy_without, keep
from onnxprune.model.sequences import flat_sequences, put_back

# Where a file has a tensor: the body that it is in, and its name there.
Place = tuple[Path, str]


def flattened(model: Model, named: Mapping[Place, str] | None = None) -> Model:
    """`model` with its bodies and its sequences laid out; the same object if it has none.

    Args:
        model: the model.
        named: names in the flat graph for what bodies define; other names are made up where they are taken.
    """
    if not any(_has_flow(node) for node in model.proto.graph.node):
        return flat_sequences(model)
    proto = copy_without(model.proto, "node")
    named = named or {}
    work = _Flattening(proto.graph, _defined(model.proto.graph), Names(model.proto.graph, named.values()), named)
    work.nodes(model.proto.graph, {}, ())
    return flat_sequences(replace(model, proto=proto))


def _has_flow(node: NodeProto) -> bool:
    """Whether a node has bodies that its inputs, outputs and attributes fit; others are left as they are."""
    if node.op_type not in FLAT or node.domain not in ("", "ai.onnx") or not any(node.output):
        return False
    found = {a.name: a.g for a in node.attribute if a.type == AttributeProto.GRAPH}
    made = len(node.output)
    if node.op_type == "If":
        return set(found) == {"then_branch", "else_branch"} and all(len(g.output) == made for g in found.values())
    if set(found) != {"body"}:
        return False
    return (_fits_loop if node.op_type == "Loop" else _fits_scan)(node, found["body"])


def _fits_loop(node: NodeProto, body: GraphProto) -> bool:
    states = len(node.input) - 2
    return len(body.input) == states + 2 and 0 <= states <= len(node.output) == len(body.output) - 1


def _fits_scan(node: NodeProto, body: GraphProto) -> bool:
    """Before opset 9, a Scan had a batch axis and one more input."""
    attrs = attributes(node)
    sliced = attrs.get("num_scan_inputs")
    if not isinstance(sliced, int) or not 1 <= sliced <= len(node.input) == len(body.input):
        return False
    parts = len(node.output) - (len(node.input) - sliced)
    lengths = {"scan_input_axes": sliced, "scan_output_axes": parts}
    lists = {name: attrs.get(name) or [0] * count for name, count in lengths.items()}
    fitting = all(isinstance(lists[name], list) and len(lists[name]) == count for name, count in lengths.items())
    return fitting and parts >= 0 and len(body.output) == len(node.output)


def _defined(graph: GraphProto) -> set[str]:
    """The names that a graph defines, without those of its bodies."""
    names = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    names |= {s.values.name for s in graph.sparse_initializer}
    return names | {o for n in graph.node for o in n.output if o}


@dataclass
class _Flattening:
    graph: GraphProto
    taken: set[str]
    names: Names
    named: Mapping[Place, str]

    def unique(self, path: Path, name: str) -> str:
        """The name that is asked for, or its own, where no scope that was laid out before has it; else a new one."""
        name = self.named.get((path, name), name)
        if name in self.taken:
            name = self.names.unique(name)
        self.taken.add(name)
        return name

    def nodes(self, graph: GraphProto, renamed: Mapping[str, str], path: Path) -> None:
        for node in graph.node:
            if _has_flow(node):
                self.flow(node, renamed, path)
            else:
                new = self.graph.node.add()
                new.CopyFrom(node)
                rename(new, renamed)

    def flow(self, node: NodeProto, renamed: Mapping[str, str], path: Path) -> None:
        """A node with bodies: every body with its `BodyStart`, then the node."""
        bare = NodeProto()
        bare.CopyFrom(node)
        given = [renamed.get(i, i) for i in node.input]
        outer = [renamed.get(o, o) for o in node.output]
        inputs, names = list(given[:1] if node.op_type != "Scan" else ()), []
        extra = _extra(node)
        first = 1
        for attribute in bare.attribute:
            if attribute.type == AttributeProto.GRAPH:
                names.append(attribute.name)
                begun, ended = self.body(attribute, given, renamed, (*path, (node.output[0], attribute.name)), extra)
                if node.op_type != "If":
                    inputs += begun[extra["counted"] :]
                    first = len(inputs)
                inputs += ended
                attribute.g.Clear()
        flat = helper.make_node(
            node.op_type,
            inputs,
            outer,
            name=node.name,
            domain=node.domain,
            bodies=names,
            node=bare.SerializeToString(),
            states=extra["states"],
            first=first,
            go=given[1] if node.op_type == "Loop" else None,
            axes=extra["out_axes"],
            whole=given[extra["states"]] if extra["in_axes"] else None,
            along=extra["in_axes"][0] if extra["in_axes"] else None,
            path=json.dumps(path),
        )
        self.graph.node.append(flat)

    def body(
        self,
        attribute: AttributeProto,
        given: list[str],
        renamed: Mapping[str, str],
        path: Path,
        extra: Mapping[str, Any],
    ) -> tuple[list[str], list[str]]:
        """Lay a body out; the names of what it is given and of what it returns."""
        graph = attribute.g
        own = {name: self.unique(path, name) for name in sorted(_defined(graph))}
        inner = dict(renamed) | own
        begun = [inner[v.name] for v in graph.input] or [self.names.unique(f"{attribute.name}_begins")]
        skeleton = GraphProto()
        copy_except(graph, skeleton, "node", "initializer", "sparse_initializer")
        original = {flat: name for name, flat in own.items() if flat != name}
        body_start = helper.make_node(
            control_flow.BODY_START,
            given,
            begun,
            name=attribute.name,
            domain=control_flow.DOMAIN,
            counted=extra["counted"],
            states=extra["states"],
            axes=extra["in_axes"],
        )
        body_start.attribute.append(helper.make_attribute("body", skeleton.SerializeToString()))
        body_start.attribute.append(
            helper.make_attribute("names", json.dumps({"original": original, "own": sorted(own.values())}))
        )
        self.graph.node.append(body_start)
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


def _extra(node: NodeProto) -> dict[str, Any]:
    """How the inputs of a node become those of its body."""
    if node.op_type == "If":
        return {"counted": 1, "states": 0, "in_axes": None, "out_axes": None}
    if node.op_type == "Loop":
        return {"counted": 2, "states": len(node.input) - 2, "in_axes": None, "out_axes": None}
    attrs = attributes(node)
    sliced = attrs["num_scan_inputs"]
    states = len(node.input) - sliced
    return {
        "counted": 0,
        "states": states,
        "in_axes": list(attrs.get("scan_input_axes") or [0] * sliced),
        "out_axes": list(attrs.get("scan_output_axes") or [0] * (len(node.output) - states)) or None,
    }


def rename(node: NodeProto, renamed: Mapping[str, str]) -> None:
    """Other names for the tensors of a node, in its bodies too."""
    if not renamed:
        return
    node.input[:] = [renamed.get(i, i) for i in node.input]
    node.output[:] = [renamed.get(o, o) for o in node.output]
    for body in bodies(node):
        for inner in body.node:
            rename(inner, renamed)
        for value in body.output:
            value.name = renamed.get(value.name, value.name)


# --- and back --------------------------------------------------------------------------------------------


@dataclass
class _Frame:
    """A body that is being put back."""

    body_start: NodeProto
    nodes: list[NodeProto] = field(default_factory=list)


def closed(model: Model) -> Model:
    """A flat model with sequences and bodies back in place, in the file itself; the same object if it has no bodies.

    Data that `values` makes goes into the weights, but for that of tensors which lie in another file: inside a body a
    weight may bear another name.
    """
    graph = model.proto.graph
    put_back(graph)
    if not any(is_body_start(node) for node in graph.node):
        return model
    values = dict(model.values)
    for tensor in graph.initializer:
        if tensor.name in values and tensor.data_location != TensorProto.EXTERNAL:
            fresh = numpy_helper.from_array(np.asarray(values.pop(tensor.name)()), tensor.name)
            if tensor.doc_string:
                fresh.doc_string = tensor.doc_string
            fresh.metadata_props.extend(tensor.metadata_props)
            tensor.CopyFrom(fresh)
    unflatten(graph)
    return replace(model, values=values)


def unflatten(graph: GraphProto) -> None:
    """Put the sequences and the bodies of a flat graph back where they were."""
    put_back(graph)
    if not any(is_body_start(node) for node in graph.node):
        return
    infos = {info.name: info for info in graph.value_info}
    home: set[str] = set()
    stack = [_Frame(NodeProto())]
    for node in graph.node:
        if is_body_start(node):
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


def settle(graph: GraphProto, taken: Callable[[NodeProto], str], is_stale: Callable[[NodeProto], bool]) -> None:
    """Put the branch that is always taken in place of its If, where another branch is stale.

    Args:
        graph: the flat graph.
        taken: the branch that a flat If always takes; empty if either.
        is_stale: whether a node no longer fits what it reads.
    """
    stack: list[list[NodeProto]] = [[]]
    for node in graph.node:
        if is_body_start(node):
            stack.append([])
        stack[-1].append(node)
        if is_flat(node):
            stack[-1].pop()
            names = list(branches(node)) if node.op_type == "If" else ["body"]
            frames = dict(zip(names, stack[-len(names) :], strict=True))
            del stack[-len(names) :]
            branch = taken(node) if node.op_type == "If" else ""
            if branch and any(is_stale(n) for name in names if name != branch for n in frames[name]):
                stack[-1] += [*frames[branch][1:], *handed_on(node, branches(node)[branch])]
            else:
                stack[-1] += [*(n for frame in frames.values() for n in frame), node]
    if len(stack[0]) != len(graph.node):
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in stack[0]]
        del graph.node[:]
        graph.node.extend(nodes)


def handed_on(node: NodeProto, slots: range) -> list[NodeProto]:
    """What a branch returns under the names of the outputs of its If."""
    pairs = zip(slots, node.output, strict=True)
    return [helper.make_node("Identity", [node.input[slot]], [output]) for slot, output in pairs if output]


def _whole(
    graph: GraphProto,
    node: NodeProto,
    frames: list[_Frame],
    infos: Mapping[str, onnx.ValueInfoProto],
    home: set[str],
) -> NodeProto:
    """A node with its bodies as they are now; notes in `home` which weights went back."""
    made = NodeProto.FromString(next(a.s for a in node.attribute if a.name == "node"))
    made.input[:] = frames[0].body_start.input
    made.output[:] = node.output
    places = [a for a in made.attribute if a.type == AttributeProto.GRAPH]
    first = attributes(node)["first"]
    for attribute, frame in zip(places, frames, strict=True):
        parts = {a.name: a.s for a in frame.body_start.attribute}
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
        _stored(graph, body, set(names["own"]), home)
        for inner in frame.nodes:
            body.node.add().CopyFrom(inner)
        for inner in body.node:
            rename(inner, original)
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
    """Put the weights of a body back, those that a node of the body used to compute among them.

    A weight whose data lies in another file stays in the outer graph, where it is as good.
    """
    for tensor in graph.initializer:
        if tensor.name in names and tensor.data_location != TensorProto.EXTERNAL:
            body.initializer.add().CopyFrom(tensor)
            home.add(tensor.name)
    for sparse in graph.sparse_initializer:
        if sparse.values.name in names:
            body.sparse_initializer.add().CopyFrom(sparse)
            home.add(sparse.values.name)


def places(graph: GraphProto) -> dict[str, Place]:
    """Where the file has a tensor that a node of a flat graph makes, or a body defines."""
    found: dict[str, Place] = {}
    stack: list[tuple[NodeProto, list[str]]] = [(NodeProto(), [])]
    for node in graph.node:
        if is_body_start(node):
            stack.append((node, []))
            continue
        if is_flat(node):
            parts = attributes(node)
            frames = stack[-len(parts["bodies"]) :]
            del stack[-len(parts["bodies"]) :]
            for attribute, (body_start, names) in zip(parts["bodies"], frames, strict=True):
                notes = json.loads(attributes(body_start)["names"])
                path, original = body_path(node, attribute.decode()), notes["original"]
                found.update((name, (path, original.get(name, name))) for name in (*notes["own"], *names))
        stack[-1][1].extend(name for name in node.output if name)
    found.update((name, ((), name)) for name in stack[0][1])
    return found
