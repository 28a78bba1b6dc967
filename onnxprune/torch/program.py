"""A graph as a list of calls of PyTorch functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.model.graph import captured
from onnxprune.model.protos import SMALL
from onnxprune.torch.registry import Operation, Scope, Translation, find_translation
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class Call:
    """One node, ready to run.

    Attributes:
        operation: the node as its rule sees it.
        translation: its rule.
        inputs: names of the inputs; empty for one that is left out.
        outputs: names of the outputs; empty for one that is not wanted.
        around: names that its subgraphs read.
        last: names that nothing reads afterwards.
    """

    operation: Operation
    translation: Translation
    inputs: Sequence[str]
    outputs: Sequence[str]
    around: Sequence[str] = ()
    last: Sequence[str] = ()


@dataclass(eq=False)
class Program:
    """A graph, ready to run.

    Attributes:
        calls: its nodes in order.
        inputs: names of the inputs.
        outputs: names of the outputs.
        constants: initializers of its own (subgraphs have some).
    """

    calls: Sequence[Call]
    inputs: Sequence[str]
    outputs: Sequence[str]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def run(self, values: dict[str, Any]) -> list[Any]:
        """Compute the outputs.

        Args:
            values: tensors by name, the inputs among them; results are added and removed again.

        Raises:
            ModelError: PyTorch refuses a node.
        """
        values.update(self.constants)
        for call in self.calls:
            results = _results(call, values)
            for name, result in zip(call.outputs, results, strict=False):
                if name:
                    values[name] = result
            for name in call.last:
                values.pop(name, None)
        return [values[name] for name in self.outputs]

    def within(self, arguments: Sequence[Any], scope: Scope) -> list[Any]:
        """Run as a subgraph on inputs and the tensors around it."""
        return self.run({**scope, **dict(zip(self.inputs, arguments, strict=False))})


def _results(call: Call, values: Mapping[str, Any]) -> Sequence[Any]:
    numbers = call.translation.numbers
    arguments = []
    for slot, name in enumerate(call.inputs):
        value = values[name] if name else None
        arguments.append(value.tolist() if slot in numbers and value is not None else value)
    options = (
        {"scope": {name: values[name] for name in call.around if name in values}} if call.translation.inner else {}
    )
    try:
        result = call.translation.compute(call.operation, *_on_one_device(arguments), **options)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        message = f"PyTorch cannot compute {call.operation.kind} {call.operation.name!r}: {error}"
        raise ModelError(message, hint="are the inputs of the shapes and types that the model takes?") from error
    return result if isinstance(result, list | tuple) else [result]


def _on_one_device(arguments: list[Any]) -> list[Any]:
    """Sizes are computed on the CPU; where one meets a tensor on another device, it is moved there."""
    devices = {a.device for a in arguments if isinstance(a, torch.Tensor)}
    if len(devices) < 2:
        return arguments
    target = next(d for d in devices if d.type != "cpu")
    return [a.to(target) if isinstance(a, torch.Tensor) else a for a in arguments]


def program(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> Program:
    """Make a graph ready to run.

    Args:
        graph: the graph.
        constants: elements of the tensors around it that are constants, by name.

    Raises:
        ModelError: no rule says how PyTorch computes an operator.
    """
    own = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    known = {**constants, **own}
    read_later = {o.name for o in graph.output}
    calls: list[Call] = []
    made = {o for node in graph.node for o in node.output if o}
    for node in reversed(graph.node):
        around = sorted(set(captured(node)))
        mine = {*node.input, *around, *node.output} & made
        calls.append(_call(node, known, around=around, last=sorted(mine - read_later), read_later=read_later))
        read_later |= mine
    calls.reverse()
    inputs, outputs = [i.name for i in graph.input], [o.name for o in graph.output]
    return Program(calls, inputs, outputs, {name: to_tensor(array) for name, array in own.items()})


def _call(
    node: onnx.NodeProto,
    known: Mapping[str, Array],
    *,
    around: Sequence[str],
    last: Sequence[str],
    read_later: set[str],
) -> Call:
    name = node.name or (node.output[0] if node.output else "")
    translation = find_translation(node)
    if translation is None:
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise ModelError(
            f"no rule says how PyTorch computes {operator} (node {name!r})",
            hint="onnxprune.torch.translates adds one; docs/torch.md lists what there is",
        )
    wanted = [o in read_later for o in node.output]
    operation = Operation(
        name=name,
        kind=node.op_type,
        attributes=_attributes(node),
        outputs=wanted,
        constants={slot: known[i] for slot, i in enumerate(node.input) if i in known and known[i].size <= SMALL},
        bodies={a.name: program(a.g, known).within for a in node.attribute if a.HasField("g")},
    )
    outputs = [o if keep else "" for o, keep in zip(node.output, wanted, strict=True)]
    return Call(operation, translation, list(node.input), outputs, around=around, last=last)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.HasField("g")}
    for name, value in found.items():
        if isinstance(value, bytes):
            found[name] = value.decode()
        elif isinstance(value, list) and value and isinstance(value[0], bytes):
            found[name] = [v.decode() for v in value]
    return found


def to_tensor(array: Array) -> Any:
    """Copy an array into a tensor; small integers of four bits and less become bytes.

    Raises:
        ModelError: PyTorch has no such type.
    """
    kind = array.dtype.name
    if kind in ("int4", "int2", "uint4", "uint2"):
        array = array.astype(np.int8 if kind.startswith("int") else np.uint8)
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError:
        raise ModelError(f"PyTorch has no tensors of {array.dtype}", hint="convert the model's constants") from None


__all__ = ["Call", "Program", "program", "to_tensor"]
