"""Nodes whose inputs, outputs and attributes fit no definition, as files hold them that no schema checks.

Every variant of a valid model damages one node: an input is left out, empty, of another rank or of another type, inputs
and outputs are too few or too many, an attribute is missing, of another type or of an absurd value.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from onnxprune import api
from onnxprune.cost.counts import of_trace
from onnxprune.errors import OnnxPruneError
from onnxprune.model import load
from onnxprune.proof.masked import masked
from onnxprune.rewriting import Removal, zeroed
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups

# What stands in for an input: no elements, a number, other ranks, other types.
STRANGE: dict[str, np.ndarray] = {
    "empty": np.zeros(0, np.float32),
    "empty table": np.zeros((0, 3), np.float32),
    "number": np.float32(2),
    "list": np.ones(3, np.float32),
    "table": np.ones((2, 3), np.float32),
    "rank 3": np.ones((1, 2, 8), np.float32),
    "rank 5": np.ones((1, 2, 1, 3, 2), np.float32),
    "rank 7": np.ones((1,) * 7, np.float32),
    "integers": np.array([3, -1], np.int64),
    "integer": np.int64(1 << 62),
    "bytes": np.ones((4, 8), np.uint8),
    "flags": np.zeros((2, 2), bool),
}
NUMBERS = (0, -1, 1, 3, 7, 1 << 30, 1 << 40, -(1 << 63), (1 << 63) - 1)
ATTRIBUTES: tuple[Any, ...] = (
    *NUMBERS,
    *(0.5, -1.0, float("nan"), float("inf"), "text", "", [0], [-1, 1], [1 << 62] * 3, [0.5], ["a"], [3] * 9),
)


def with_node(proto: onnx.ModelProto, index: int) -> tuple[onnx.ModelProto, NodeProto]:
    """A copy of a model, and its node at `index`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy, copy.graph.node[index]


def variants(proto: onnx.ModelProto, index: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every way to damage the node at `index`: what was done, and the model."""
    node = proto.graph.node[index]
    for slot in range(len(node.input)):
        copy, made = with_node(proto, index)
        made.input[slot] = ""
        yield f"input {slot} absent", copy
        copy, made = with_node(proto, index)
        del made.input[slot:]
        yield f"inputs from {slot} on absent", copy
        for name, value in STRANGE.items():
            yield f"input {slot} {name}", put(proto, index, slot, value)
    for name, value in STRANGE.items():
        yield f"one more input {name}", put(proto, index, len(node.input), value)
    copy, made = with_node(proto, index)
    made.input.extend([node.input[0]] * 20)
    yield "twenty more inputs", copy
    yield from _outputs(proto, index)
    for name in [a.name for a in node.attribute]:
        copy, made = with_node(proto, index)
        kept = [a for a in made.attribute if a.name != name]
        del made.attribute[:]
        made.attribute.extend(kept)
        yield f"{name} missing", copy
        for value in ATTRIBUTES:
            copy, made = with_node(proto, index)
            next(a for a in made.attribute if a.name == name).CopyFrom(helper.make_attribute(name, value))
            yield f"{name} = {value!r}", copy
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.opset_import[:]
    copy.opset_import.extend(o for o in proto.opset_import if o.domain != node.domain or not o.domain)
    yield "domain not imported", copy


def _outputs(proto: onnx.ModelProto, index: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    node = proto.graph.node[index]
    for slot in range(len(node.output)):
        copy, made = with_node(proto, index)
        made.output[slot] = ""
        _reconnect(copy, node.output[slot], node.input[0])
        yield f"output {slot} unnamed", copy
    copy, made = with_node(proto, index)
    made.output.extend(f"more{i}" for i in range(6))
    yield "six more outputs", copy
    copy, made = with_node(proto, index)
    made.output.insert(0, "")
    yield "outputs one further", copy


def _reconnect(proto: onnx.ModelProto, old: str, new: str) -> None:
    for node in proto.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    kept = [o for o in proto.graph.output if o.name != old]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)


def put(proto: onnx.ModelProto, index: int, slot: int, value: np.ndarray) -> onnx.ModelProto:
    """A copy in which an input of the node is a constant."""
    copy, node = with_node(proto, index)
    node.input.extend([""] * (slot + 1 - len(node.input)))
    node.input[slot] = "strange"
    copy.graph.initializer.append(numpy_helper.from_array(np.asarray(value), "strange"))
    return copy


def wild(rng: random.Random, op: str, domain: str, version: int, names: list[str]) -> onnx.ModelProto:
    """A node of random inputs, outputs and attributes between two contractions."""
    graph = onnx.GraphProto(name="wild")
    graph.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 4, 3]))
    graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    graph.initializer.append(numpy_helper.from_array(np.ones((3, 8), np.float32), "w_in"))
    graph.initializer.append(numpy_helper.from_array(np.ones((8, 2), np.float32), "w_out"))
    graph.node.append(helper.make_node("MatMul", ["x", "w_in"], ["a"]))
    inputs = []
    for slot in range(rng.randrange(10)):
        kind = rng.randrange(4)
        if kind > 1:
            shape = [rng.choice((1, 2, 4, 8, 24)) for _ in range(rng.randrange(6))]
            value = rng.choice([np.ones(shape, np.float32), rng.choice(list(STRANGE.values()))])
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"c{slot}"))
        inputs.append(("", "a", f"c{slot}", f"c{slot}")[kind])
    outputs = [rng.choice(("", f"b{i}", f"b{i}")) for i in range(rng.randrange(1, 5))]
    node = helper.make_node(op, inputs, outputs, domain=domain)
    node.attribute.extend(helper.make_attribute(n, rng.choice(ATTRIBUTES)) for n in names if rng.random() < 0.5)
    graph.node.append(node)
    made = next((o for o in outputs if o), "a")
    graph.node.append(helper.make_node("MatMul", [made, "w_out"], ["y"]))
    opsets = [helper.make_opsetid("", version if not domain else 17)]
    return helper.make_model(graph, opset_imports=[*opsets, *([helper.make_opsetid(domain, 1)] if domain else [])])


def survives(proto: onnx.ModelProto) -> Groups | None:
    """Trace, count, prune, mask and silence a model: None where it is refused with an error of ours."""
    try:
        groups = api.trace(load(proto))
        of_trace(groups.tracing, groups.model)
        for group in groups.groups:
            away = np.zeros(groups.classes.count, bool)
            away[np.concatenate([cell[: len(cell) // group.units] for cell in group.cells])] = True
            of_trace(groups.tracing, rewrite(groups, away), Removal(groups, away).size)
            masked(groups, away)
            zeroed(groups, away)
    except OnnxPruneError:
        return None
    return groups


def attribute_names(proto: onnx.ModelProto) -> list[str]:
    return [a.name for n in proto.graph.node for a in n.attribute if a.type != AttributeProto.GRAPH]
