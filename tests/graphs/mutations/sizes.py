"""Damage to sizes, types and values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from tests.graphs.mutations.registry import INTEGERS, attributes, mutation

HUGE = (1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)


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
