"""Damage to nodes, names and versions."""

from __future__ import annotations

import random

import onnx
from onnx import ModelProto, helper

from tests.graphs.mutations.registry import mutation

_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})


@mutation
def spliced_parts(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    for _ in range(rng.randint(1, 6)):
        field = rng.choice(["node", "node", "initializer", "input", "output", "value_info"])
        parts, target = getattr(other.graph, field), getattr(model.graph, field)
        if parts:
            part = rng.choice(parts)
            if target and rng.random() < 0.5:
                target[rng.randrange(len(target))].CopyFrom(part)
            else:
                target.append(part)


@mutation
def swapped_weights(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """Another model's weights under the names of these."""
    for tensor in rng.sample(list(model.graph.initializer), min(3, len(model.graph.initializer))):
        if other.graph.initializer:
            name = tensor.name
            tensor.CopyFrom(rng.choice(other.graph.initializer))
            tensor.name = name


@mutation
def cycle(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    nodes = model.graph.node
    first = rng.randrange(len(nodes))
    later = rng.choice(nodes[first:])
    if nodes[first].input:
        nodes[first].input[rng.randrange(len(nodes[first].input))] = later.output[0]


@mutation
def missing_inputs(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    node = rng.choice([n for n in model.graph.node if n.input] or model.graph.node)
    kind = rng.choice(["unknown", "empty", "dropped", "all", "graph", "weight", "extra", "outputs", "no outputs"])
    if kind == "graph":
        del model.graph.input[rng.randrange(len(model.graph.input))]
    elif kind == "weight" and model.graph.initializer:
        del model.graph.initializer[rng.randrange(len(model.graph.initializer))]
    elif kind == "extra":
        node.input.extend(rng.choices(node.input or ["x"], k=rng.choice([1, 3, 40])))
    elif kind == "outputs":
        node.output.extend(f"spare {i}" for i in range(rng.choice([1, 3])))
    elif kind == "no outputs":
        del node.output[:]
    elif kind == "all":
        del node.input[:]
    elif node.input and kind == "dropped":
        del node.input[rng.randrange(len(node.input))]
    elif node.input:
        node.input[rng.randrange(len(node.input))] = "" if kind == "empty" else "nowhere"


@mutation
def shuffled_inputs(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    for node in rng.sample(list(model.graph.node), min(3, len(model.graph.node))):
        names = list(node.input)
        rng.shuffle(names)
        node.input[:] = names


@mutation
def other_inputs(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """Nodes read tensors of another shape or type."""
    known = [t.name for t in model.graph.initializer] + [i.name for i in model.graph.input]
    for index, node in enumerate(model.graph.node):
        if node.input and rng.random() < 2 / len(model.graph.node):
            before = [o for n in model.graph.node[:index] for o in n.output if o]
            node.input[rng.randrange(len(node.input))] = rng.choice(before + known)


@mutation
def duplicate_names(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    graph = model.graph
    kind = rng.choice(["node", "output", "weight", "input", "all", "of input", "graph output"])
    one, two = rng.choice(graph.node), rng.choice(graph.node)
    if kind == "node":
        graph.node.append(one)
    elif kind == "output" and one.output and two.output:
        two.output[0] = one.output[0]
    elif kind == "weight" and graph.initializer:
        graph.initializer.append(rng.choice(graph.initializer))
    elif kind == "input":
        graph.input.append(graph.input[0])
    elif kind == "all":
        for node in graph.node:
            node.name = "same"
    elif kind == "of input" and one.output:
        one.output[0] = graph.input[0].name
    else:
        graph.output.append(graph.output[0])


@mutation
def unsorted_nodes(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@mutation
def other_operators(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    for node in rng.sample(list(model.graph.node), min(rng.choice([1, 3]), len(model.graph.node))):
        node.op_type = rng.choice([*_OPERATORS, "", "Nothing", rng.choice(other.graph.node).op_type])
        if rng.random() < 0.2:
            node.domain = rng.choice(["ai.onnx", "ai.onnx.ml", "com.microsoft", "com.example"])


@mutation
def other_versions(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    kind = rng.choice(["opset", "opset", "ir", "none", "twice", "domain"])
    if kind == "ir":
        model.ir_version = rng.choice([-1, 0, 1, 2, 3, 99, (1 << 63) - 1])
    elif kind == "none":
        del model.opset_import[:]
    elif kind == "twice":
        model.opset_import.append(helper.make_opsetid("", rng.randint(1, 23)))
    elif kind == "domain":
        model.opset_import[0].domain = "com.example"
    else:
        model.opset_import[0].version = rng.choice([-1, 0, *range(1, 26), 999, (1 << 63) - 1])


@mutation
def no_graph(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    for field in rng.sample(["node", "initializer", "input", "output", "value_info"], rng.randint(1, 3)):
        model.graph.ClearField(field)
