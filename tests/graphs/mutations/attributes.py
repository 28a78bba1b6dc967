"""Damage to attributes, subgraphs, functions, and where weights are."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from tests.graphs.mutations.registry import INTEGERS, attributes, mutation


@mutation
def attributes_of_a_wrong_type(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    values: list[Any] = [1, 1.5, "text", [1, 2], [1.5], ["a"], TensorProto(data_type=1, dims=[1]), model.graph]
    for attribute in attributes(rng, model):
        value = rng.choice(values)
        if rng.random() < 0.5:
            attribute.CopyFrom(helper.make_attribute(attribute.name, value))
        else:  # the value stays, the type says otherwise
            attribute.type = rng.randint(0, 14)


@mutation
def attributes_out_of_range(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    for attribute in attributes(rng, model):
        if attribute.type == AttributeProto.INT:
            attribute.i = rng.choice(INTEGERS)
        elif attribute.type == AttributeProto.INTS and attribute.ints:
            kind = rng.choice(["value", "more", "fewer"])
            if kind == "value":
                attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTEGERS)
            else:
                attribute.ints[:] = [*attribute.ints, 1] if kind == "more" else attribute.ints[:-1]
        elif attribute.type == AttributeProto.STRING:
            attribute.s = rng.choice([b"", b"NOTHING", b"\xff", b"a,b->", b"...", b"ij,jk->ikz"])
        else:
            attribute.f = rng.choice([float("nan"), float("inf"), 0.0, -1.0])


@mutation
def attributes_lost_or_added(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    nodes = list(model.graph.node)
    for node in rng.sample(nodes, min(2, len(nodes))):
        if node.attribute and rng.random() < 0.6:
            del node.attribute[rng.randrange(len(node.attribute))]
        else:
            name = rng.choice(["axis", "axes", "group", "perm", "to", "num_heads", "keepdims", "split", "body"])
            node.attribute.append(helper.make_attribute(name, rng.choice([[0, 1], 0, -1, 5, "x"])))


@mutation
def nested_subgraphs(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """Branches within branches; protobuf itself refuses about a hundred levels of messages."""
    graph, last = model.graph, model.graph.output[0].name
    body = GraphProto(name="inner", node=[helper.make_node("Identity", [last], ["leaf"])])
    body.output.append(onnx.ValueInfoProto(name="leaf"))
    for depth in range(rng.choice([1, 5, 20, 28])):
        op = rng.choice(["If", "If", "Loop"])
        given, made = (["yes"], f"r{depth}") if op == "If" else (["", "yes"], f"r{depth}")
        node = helper.make_node(op, given, [made])
        fields = ("then_branch", "else_branch")[: 2 if depth < 5 else 1] if op == "If" else ("body",)
        node.attribute.extend(helper.make_attribute(field, body) for field in fields)
        body = GraphProto(name="outer", node=[node], output=[onnx.ValueInfoProto(name=made)])
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.node.extend(body.node)


@mutation
def functions_that_call_each_other(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    calls = rng.choice([["a"], ["b"], ["b", "b"], ["a", "b"]])
    levels = rng.choice([1, 12, 30])
    names = ["a", "b"] if levels == 1 else [f"f{i}" for i in range(levels)]
    for index, name in enumerate(names):
        inner = calls if levels == 1 else [names[index + 1]] * 2 if index + 1 < levels else []
        steps = [helper.make_node(op, ["x"], [f"t{i}"], domain="local") for i, op in enumerate(inner)]
        steps.append(helper.make_node("Identity", ["t0" if inner else "x"], ["y"]))
        opsets = [*model.opset_import[:1], helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", name, ["x"], ["y"], steps, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node(names[0], [model.graph.output[0].name], ["called"], domain="local"))


@mutation
def foreign_files(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """External data elsewhere, of another size, or a device that never ends."""
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = [
        "/dev/zero",
        "/etc/passwd",
        "../../etc/passwd",
        "",
        ".",
        "none.bin",
        "a\0b",
        "/proc/self/mem",
        "fuzz.onnx",
    ]
    tensor.external_data.add(key="location", value=rng.choice(places))
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            tensor.external_data.add(key=key, value=rng.choice(["0", "-1", "x", str(1 << 62), "9" * 5000, ""]))


@mutation
def sparse_weights(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    sparse = model.graph.sparse_initializer.add(dims=[rng.choice([d, d, *INTEGERS]) for d in tensor.dims])
    values = np.ones(2, np.float32)
    sparse.values.CopyFrom(numpy_helper.from_array(values, tensor.name))
    index = np.array([0, rng.choice(INTEGERS)], np.int64)
    sparse.indices.CopyFrom(numpy_helper.from_array(index if rng.random() < 0.7 else index.reshape(2, 1), "i"))
    model.graph.initializer.remove(tensor)
