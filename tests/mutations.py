"""Damage that files come with: each mutation makes one from a valid model (and sometimes parts of another)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

CHAIN = 50_000
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
HUGE = (1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)
INTEGERS = (-(1 << 63), -(1 << 31), -7, -2, -1, 0, 1, 2, 3, 1000, 1 << 31, 1 << 40, (1 << 63) - 1)
# Not UTF-8, where the wire format of the copy below says that text follows.
BAD_TEXT = b"\xff\xfe\xc3("

# Changes the model in place (or returns other bytes); may take parts of the second model.
Mutation = Callable[[random.Random, ModelProto, ModelProto], bytes | None]
_MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    _MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def names() -> list[str]:
    return list(_MUTATIONS)


def mutated(name: str, rng: random.Random, model: bytes, other: bytes) -> bytes:
    """A damaged file; another mutation comes on top in one case of four, where the damage left it something to do."""
    proto, spare = ModelProto.FromString(model), ModelProto.FromString(other)
    data = _MUTATIONS[name](rng, proto, spare)
    if data is None and rng.random() < 0.25:
        with contextlib.suppress(IndexError, ValueError, TypeError, KeyError):
            data = _MUTATIONS[rng.choice(names())](rng, proto, spare)
    return proto.SerializeToString() if data is None else data


# --- bytes ------------------------------------------------------------------------------------------------


@mutation
def flipped_bits(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    data = bytearray(model.SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@mutation
def flipped_bits_of_the_structure(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes | None:
    """Of anything but the weights, where most bytes are."""
    kept = [ModelProto.FromString(model.SerializeToString()).graph.initializer, model.graph.initializer]
    del model.graph.initializer[:]
    data = bytearray(model.SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 4])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    weights = ModelProto(graph=GraphProto(initializer=kept[0]))
    return bytes(data) + weights.SerializeToString()  # protobuf merges what comes twice


@mutation
def truncated(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    data = model.SerializeToString()
    return data[: rng.randrange(len(data))]


@mutation
def overwritten_bytes(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    data = bytearray(model.SerializeToString())
    start, size = rng.randrange(len(data)), rng.choice([1, 4, 32, 500])
    kind = rng.choice(["random", "zeros", "removed", "twice"])
    part = data[start : start + size]
    data[start : start + size] = {
        "random": rng.randbytes(len(part)), "zeros": bytes(len(part)), "removed": b"", "twice": part * 2,
    }[kind]  # fmt: skip
    return bytes(data)


@mutation
def spliced_bytes(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    one, two = model.SerializeToString(), other.SerializeToString()
    return one[: rng.randrange(len(one))] + two[rng.randrange(len(two)) :]


@mutation
def merged_files(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    return model.SerializeToString() + other.SerializeToString()


@mutation
def invalid_text(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    node = rng.choice(model.graph.node)
    mark = "\x01\x02\x03\x04"
    kind = rng.randrange(6)
    if kind == 0:
        node.name = mark
    elif kind == 1:
        node.op_type = mark
    elif kind == 2:
        model.graph.input[0].name = mark
    elif kind == 3 and model.graph.initializer:
        rng.choice(model.graph.initializer).name = mark
    elif kind == 4:
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_param = mark
    else:
        node.attribute.append(helper.make_attribute(mark, 1))
    return model.SerializeToString().replace(mark.encode(), BAD_TEXT)


# --- the graph --------------------------------------------------------------------------------------------


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


# --- sizes and values -------------------------------------------------------------------------------------


def declared(rng: random.Random, model: ModelProto) -> Any:
    """The dims of a graph input, of an output or of a value in between."""
    values = [v for v in (*model.graph.input, *model.graph.output, *model.graph.value_info) if _dims(v)]
    return _dims(rng.choice(values)) if values else []


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


@mutation
def wrong_dims(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    if rng.random() < 0.5 and model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        array = numpy_helper.to_array(tensor)
        sizes = [max(0, size + rng.choice([-1, 0, 0, 1])) for size in array.shape]
        sizes = sizes[:-1] if rng.random() < 0.2 else sizes + [1] * (rng.random() < 0.2)
        tensor.CopyFrom(numpy_helper.from_array(np.resize(array, sizes).astype(array.dtype), tensor.name))
    elif dims := declared(rng, model):
        kind = rng.choice(["other", "name", "more", "fewer", "none"])
        if kind == "more":
            dims.add().dim_value = 3
        elif kind == "fewer":
            del dims[-1]
        elif kind == "none":
            rng.choice(dims).Clear()
        elif kind == "name":
            rng.choice(dims).dim_param = rng.choice(["n", "batch", "", " ", "1", "a+b", "\n"])
        else:
            rng.choice(dims).dim_value = rng.choice([0, 1, 2, 3, 5, 1000])


def extreme_dims(rng: random.Random, model: ModelProto, values: Sequence[int]) -> None:
    if rng.random() < 0.4 and model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        dims = [*tensor.dims] or [1]
        dims[rng.randrange(len(dims))] = rng.choice(values)
        tensor.dims[:] = dims
        if rng.random() < 0.5:  # the data in a typed field, which says nothing of its size
            tensor.ClearField("raw_data")
            tensor.float_data.append(1)
    elif dims := declared(rng, model):
        for _ in range(rng.choice([1, 1, 3])):
            rng.choice(dims).dim_value = rng.choice(values)


@mutation
def huge_dims(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    extreme_dims(rng, model, HUGE)


@mutation
def negative_dims(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    extreme_dims(rng, model, (-1, -2, -(1 << 63)))


@mutation
def computed_sizes(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """Sizes, indices and pads in constants become something else."""
    found = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64]
    found += [a.t for n in model.graph.node for a in n.attribute if a.type == AttributeProto.TENSOR]
    found = [t for t in found if t.data_type == TensorProto.INT64 and numpy_helper.to_array(t).size]
    for tensor in rng.sample(found, min(2, len(found))):
        value = numpy_helper.to_array(tensor).copy()
        value.reshape(-1)[rng.randrange(value.size)] = rng.choice(INTEGERS)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


@mutation
def large_tensor_in_between(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """A few bytes that ask for terabytes."""
    graph, size = model.graph, rng.choice([1 << 20, 1 << 28, 1 << 33, 1 << 45, (1 << 62) + 3])
    source = graph.input[0].name
    op = rng.choice(["Expand", "Tile", "ConstantOfShape", "Range", "Pad"])
    shape = np.array([size], np.int64)
    sizes = {"Tile": np.array([size, 1, 1, 1]), "Pad": np.array([0, size, 0, 0] * 2)}
    graph.initializer.append(numpy_helper.from_array(sizes.get(op, shape), "size"))
    inputs = {"ConstantOfShape": ["size"], "Range": ["nought", "limit", "step"]}.get(op, [source, "size"])
    for name, value in (("nought", 0), ("limit", size), ("step", 1)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    made = [helper.make_node(op, inputs, ["big"]), helper.make_node("Cast", ["big"], ["cast"], to=1)]
    made += [helper.make_node("ReduceMax", ["cast"], ["most"], keepdims=0)]
    made += [helper.make_node("Add", [source, "most"], ["more"])]
    for node in graph.node:
        node.input[:] = ["more" if name == source else name for name in node.input]
    nodes = made + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)


@mutation
def odd_weights(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """NaN, infinity, denormals, the largest number."""
    floats = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 1]
    for tensor in rng.sample(floats, min(rng.choice([1, 2, 50]), len(floats))):
        value = numpy_helper.to_array(tensor).copy()
        share = max(1, int(value.size * rng.choice([0, 0, 0.1, 1])))
        value.reshape(-1)[rng.sample(range(value.size), share)] = rng.choice([np.nan, np.inf, -np.inf, 1e-42, 3e38])
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


@mutation
def wrong_element_counts(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    array = numpy_helper.to_array(tensor)
    field = rng.choice(["raw_data", "float_data", "int64_data", "int32_data", "double_data", "string_data", "none"])
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    count = max(0, rng.choice([0, 1, array.size - 1, array.size + 1]))
    if field == "raw_data":
        tensor.raw_data = bytes(count * array.itemsize)
    elif field == "string_data":
        tensor.string_data.extend([b"a"] * count)
    elif field != "none":
        getattr(tensor, field).extend([1] * count)


@mutation
def unknown_types(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    number = rng.choice([0, 4, 8, 14, 15, 17, 20, 22, 24, 26, 27, 99, 2147483647])
    kind = rng.choice(["tensor", "value", "attribute", "location", "cast"])
    if kind == "value":
        value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
        value.type.tensor_type.elem_type = number
    elif kind == "attribute":
        for attribute in attributes(rng, model):
            data = attribute.SerializeToString() + bytes([0xA0, 0x01, rng.choice([0, 13, 14, 15, 20, 99])])
            attribute.CopyFrom(AttributeProto.FromString(data))
    elif kind == "cast":
        rng.choice(model.graph.node).CopyFrom(helper.make_node("Cast", ["x"], ["y"], to=number))
    elif model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        if kind == "tensor":
            tensor.data_type = number
        else:
            tensor.CopyFrom(TensorProto.FromString(tensor.SerializeToString() + bytes([0x70, rng.choice([1, 2, 9])])))


# --- attributes and subgraphs -----------------------------------------------------------------------------


def attributes(rng: random.Random, model: ModelProto) -> list[AttributeProto]:
    found = [a for n in model.graph.node for a in n.attribute]
    return rng.sample(found, min(rng.choice([1, 2]), len(found)))


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


# --- depth ------------------------------------------------------------------------------------------------


@mutation
def deep_chains(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """Fifty thousand nodes one after the other: behind the model, on a weight, or between two shapes."""
    graph, count = model.graph, rng.choice([1000, CHAIN])
    kind = rng.choice(["Relu", "Identity", "Add", "weight", "shape"])
    names = [f"deep{i}" for i in range(count)]
    if kind == "weight" and graph.initializer:
        tensor = rng.choice(graph.initializer)
        names[-1], tensor.name = tensor.name, "deepest"
        chain = [
            NodeProto(op_type="Identity", input=[a], output=[b])
            for a, b in zip(["deepest", *names], names, strict=False)
        ]
    elif kind == "shape":
        graph.initializer.append(numpy_helper.from_array(np.array([1, -1], np.int64), "sizes"))
        graph.node.add(op_type="Shape", input=[graph.output[0].name], output=["size"])
        chain = [
            NodeProto(op_type="Add", input=[a, a], output=[b]) for a, b in zip(["size", *names], names, strict=False)
        ]
        graph.node.extend(chain)
        chain = [NodeProto(op_type="Reshape", input=[graph.output[0].name, names[-1]], output=["end"])]
    else:
        op, times = ("Relu", 1) if kind == "weight" else (kind, 1 + (kind == "Add"))
        first = graph.output[0].name
        chain = [
            NodeProto(op_type=op, input=[a] * times, output=[b]) for a, b in zip([first, *names], names, strict=False)
        ]
        graph.output[0].name = names[-1]
    nodes = [*chain, *graph.node] if kind == "weight" else [*graph.node, *chain]
    del graph.node[:]
    graph.node.extend(nodes)
