"""Copying parts of protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

# The domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"
# The domains of the quantisers that QONNX, Brevitas and FINN share.
QUANTIZING = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
# Shape inference wants the values of small tensors (sizes, indices, pads) only.
SMALL = 1024


# Kinds of attributes that hold graphs; some exporters leave the kind out.
_HOLDS_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.UNDEFINED)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in the attributes of a node."""
    for attribute in node.attribute:
        yield from bodies_in(attribute)


def bodies_in(attribute: AttributeProto) -> Iterable[GraphProto]:
    """The graphs in an attribute."""
    if attribute.type not in _HOLDS_GRAPHS:  # asked first: most attributes are numbers, and every pass meets them all
        return ()
    return (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def copy_except(source: Any, target: Any, *omitted: str) -> None:
    """Copy all fields that are set in `source` into the empty message `target`, but for those named."""
    for descriptor, value in source.ListFields():
        if descriptor.name in omitted:
            continue
        field = getattr(target, descriptor.name)
        if hasattr(field, "extend"):
            field.extend(value)
        elif hasattr(field, "CopyFrom"):
            field.CopyFrom(value)
        else:
            setattr(target, descriptor.name, value)


def copy_without(proto: onnx.ModelProto, *omitted: str) -> onnx.ModelProto:
    """A copy of a model without the fields `omitted` of its graph."""
    made = onnx.ModelProto()
    copy_except(proto, made, "graph")
    copy_except(proto.graph, made.graph, *omitted)
    made.graph.SetInParent()
    return made


def skeleton(proto: onnx.ModelProto, *omitted: str) -> onnx.ModelProto:
    """A copy of a model without its initializers, and without the fields `omitted` of its graph."""
    return copy_without(proto, "initializer", *omitted)


def without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the large initializers turned into inputs: all that shape inference looks at, in little memory."""
    light = skeleton(proto)
    open_sizes(light)
    listed = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= SMALL and tensor.data_location != TensorProto.EXTERNAL:
            light.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in listed:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def open_sizes(proto: onnx.ModelProto) -> None:
    """Open the sizes that a model declares as negative, in itself.

    Old exporters write -1 for a size that is not known, and ONNX Runtime reads it so; ONNX's shape inference counts
    with it, and ends the process at a Slice along such an axis.
    """
    for graph in graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.Clear()


def keep(items: Any, wanted: Callable[[Any], bool]) -> None:
    """Delete what is not wanted from a repeated field."""
    for index in range(len(items) - 1, -1, -1):
        if not wanted(items[index]):
            del items[index]
