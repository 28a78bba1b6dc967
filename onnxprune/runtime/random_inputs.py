"""Random inputs on which a model runs: of its types and shapes, with ids and lengths in range."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnxprune.model import Model, control_flow
from onnxprune.model.graph import MOVES
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.tensors import dtype_of
from onnxprune.model.traits import TRAITS

# Operators through which token ids reach the table that they index; a Clip only keeps them inside of it.
_CARRIERS = MOVES | {"Clip"}
# Operator -> its inputs that are indices, each with the input that is their table.
_TABLES = {op: traits.tables for (_, op), traits in TRAITS.items() if traits.tables}
# Operators that compare two inputs.
_COMPARISONS = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"))

# How often a loop runs whose count is an input: state goes around, and comes back.
STEPS = 3


def random_feeds(
    model: Model, static: StaticInfo, rng: np.random.Generator, *, choice: int = 0
) -> dict[str, np.ndarray]:
    """Draw inputs of the sizes in `static`: normal floats, indices below the size of the table that they index.

    Bytes (pixels, quantised numbers) are of any value; masks (booleans, and other integers that index nothing) ones.

    Args:
        model: the model, its graph flat.
        static: its shapes.
        rng: the source of random numbers.
        choice: which of the numbers that the graph compares an integer of one entry with is its value: one of
            `count_choices`.

    Returns:
        Input name -> array.
    """
    graph = model.proto.graph
    weights = {t.name for t in graph.initializer}
    limits, counts = _limits(graph, static), _counts(graph)
    compared = _compared(graph, static) if choice else {}
    feeds = {}
    for value in graph.input:
        if value.name in weights or not value.type.HasField("tensor_type"):
            continue
        shape = static.shapes.get(value.name, ())
        dtype = dtype_of(value.type.tensor_type.elem_type)
        if value.name in counts:
            feeds[value.name] = np.full(shape, STEPS, dtype)
        elif dtype.kind in "iu":
            limit = limits.get(value.name)
            numbers = compared.get(value.name)
            if numbers:
                feeds[value.name] = np.full(shape, numbers[min(choice, len(numbers)) - 1], dtype)
            elif limit:
                feeds[value.name] = rng.integers(0, limit, shape).astype(dtype)
            elif dtype.itemsize == 1:
                feeds[value.name] = rng.integers(0, 256, shape).astype(np.uint8).view(dtype)
            else:
                feeds[value.name] = np.ones(shape, dtype)
        elif dtype.kind == "b":
            feeds[value.name] = np.ones(shape, dtype)
        elif dtype.kind == "O":
            feeds[value.name] = np.full(shape, "a", object)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def count_choices(model: Model, static: StaticInfo) -> int:
    """Count the values that `random_feeds` can choose from for integers that the graph compares with numbers.

    Args:
        model: the model, its graph flat.
        static: its shapes.

    Returns:
        At least 1.
    """
    return 1 + max(map(len, _compared(model.proto.graph, static).values()), default=0)


def _compared(graph: onnx.GraphProto, static: StaticInfo) -> dict[str, list[int]]:
    """Integer input of one entry -> the numbers around those that the graph compares it with, each once.

    Of several numbers (the positions of a mask, whose length the input is) it is the one behind the largest.
    """
    origin = _origins(graph)
    found: dict[str, dict[int, None]] = {}
    for node in graph.node:
        if node.op_type not in _COMPARISONS or len(node.input) != 2:
            continue
        for own, other in (node.input, node.input[::-1]):
            name, value = origin.get(own, ""), static.example_values.get(other)
            is_one = math.prod(static.shapes.get(name, (0,))) == 1
            if not is_one or value is None or not value.size or value.dtype.kind not in "iuf":
                continue
            number = int(value.max()) + (value.size > 1)
            around = (number,) if node.op_type == "Equal" else (number, number + 1, max(0, number - 1))
            found.setdefault(name, {}).update(dict.fromkeys(around))
    return {name: list(numbers) for name, numbers in found.items()}


def _origins(graph: onnx.GraphProto) -> dict[str, str]:
    """Tensor -> the input that it is, followed through reshapes and casts."""
    origin = {i.name: i.name for i in graph.input}
    for node in graph.node:
        if node.op_type in _CARRIERS and node.input and node.input[0] in origin:
            origin.update(dict.fromkeys(filter(None, node.output), origin[node.input[0]]))
    return origin


def _limits(graph: onnx.GraphProto, static: StaticInfo) -> dict[str, int]:
    """Integer input -> the smallest table that it indexes."""
    origin = _origins(graph)
    limits: dict[str, int] = {}
    for node in graph.node:
        for index, table in _TABLES.get(node.op_type, ()):
            if len(node.input) > max(index, table) and node.input[index] in origin:
                shape = static.shapes.get(node.input[table])
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                if shape:
                    name = origin[node.input[index]]
                    limits[name] = min(limits.get(name, 1 << 31), max(1, shape[axis]))
    return limits


def _counts(graph: onnx.GraphProto) -> set[str]:
    """Inputs that say how often a loop of a flat graph runs."""
    origin = _origins(graph)
    return {
        origin[n.input[0]]
        for n in graph.node
        if control_flow.is_body_start(n) and n.input[0] in origin and control_flow.is_loop(n)
    }
