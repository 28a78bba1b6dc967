"""Inputs and outputs of blocks that were taken out: they go, and numbered ones of others close the gap.

A cache of keys and values has an input and an output for each layer, numbered in their names. Without layer 1, layers
2 and 3 become 1 and 2 there, so that whoever runs the model counts from 0 to one less than before. An output of another
graph that is handed to an input that goes has no reader any more, and goes, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from onnxprune.model import Model
from onnxprune.model.blocks import GraphBlock
from onnxprune.model.flatten import rename
from onnxprune.model.graph import remove_dead
from onnxprune.model.protos import keep
from onnxprune.model.run_order import reads


@dataclass(frozen=True)
class IoRename:
    """What became of an input or output.

    Attributes:
        kind: "input" or "output".
        name: in the original.
        now: in the smaller model; empty where it went.
    """

    kind: str
    name: str
    now: str


def with_fewer_io(model: Model, blocks: Sequence[GraphBlock]) -> tuple[Model, tuple[IoRename, ...]]:
    """Take the inputs out that only the blocks read, and number what is left again.

    Args:
        model: the smaller model, whose graph has lost the blocks and their outputs.
        blocks: what was taken out.

    Returns:
        The model, and what became of every input and output that went or has another name now.
    """
    gone_outputs = [name for block in blocks for name in block.outputs]
    if not gone_outputs:
        return model, ()
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    wanted = [name for block in blocks for name in block.inputs]
    _measure_others(graph, wanted)
    read = {name for node in graph.node for name in reads(node)} | {v.name for v in graph.output}
    gone_inputs = [name for name in wanted if name not in read]
    keep(graph.input, lambda value: value.name not in gone_inputs)
    if unread := _handed_only(model, gone_inputs) - set(gone_outputs):
        gone_outputs += sorted(unread)
        keep(graph.output, lambda value: value.name not in unread)
        remove_dead(graph, model.overridable)
    inputs, outputs = ([v.name for v in values] for values in (graph.input, graph.output))
    renamed = _closed_gaps(gone_inputs, inputs) | _closed_gaps(gone_outputs, outputs)
    if len(gone_inputs) < len(wanted) or not _is_one_to_one(renamed, (*inputs, *outputs)):
        renamed = {}
    for node in graph.node:
        rename(node, renamed)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
    told = [IoRename("input", name, "") for name in gone_inputs]
    told += [IoRename("output", name, "") for name in gone_outputs]
    told += [IoRename("input", name, renamed[name]) for name in inputs if name in renamed]
    told += [IoRename("output", name, renamed[name]) for name in outputs if name in renamed]
    return replace(model, proto=proto), tuple(told)


def _handed_only(model: Model, inputs: Collection[str]) -> set[str]:
    """The outputs that are handed to some inputs and to no others, as an encoder's cache for one layer of a decoder."""
    taken: dict[str, set[str]] = {}
    for made, given in model.couplings.states:
        taken.setdefault(made, set()).add(given)
    return {made for made, given in taken.items() if given.issubset(inputs)}


def _measure_others(graph: onnx.GraphProto, wanted: Collection[str]) -> None:
    """Read sizes off another input of equal type and axes, as where a mask is made for the first layer's cache.

    No node that is left reads the values of the inputs `wanted`.
    """
    kinds = {v.name: v.type.SerializeToString(deterministic=True) for v in graph.input}
    others = {kind: name for name, kind in reversed(kinds.items()) if name not in wanted}
    found = {name: others[kinds[name]] for name in wanted if kinds[name] in others and _is_named(graph, name)}
    for node in graph.node:
        node.input[:] = [found.get(name, name) for name in node.input]


def _is_named(graph: onnx.GraphProto, name: str) -> bool:
    """Whether all axes of an input have a size or a name, so that another input of its type has the same ones."""
    value = next(v for v in graph.input if v.name == name)
    return all(dim.WhichOneof("value") for dim in value.type.tensor_type.shape.dim)


def _is_one_to_one(renamed: Mapping[str, str], names: Collection[str]) -> bool:
    return len({renamed.get(name, name) for name in names}) == len(set(names))


def _closed_gaps(gone: Collection[str], left: Collection[str]) -> dict[str, str]:
    """Name -> new name, for the names that are those that went but for a higher number in them."""
    found: dict[str, str] = {}
    families: dict[tuple[str, str], list[int]] = {}
    for name in gone:
        for before, number, after in _numbers(name):
            families.setdefault((before, after), []).append(number)
    for name in left:
        for before, number, after in _numbers(name):
            lower = sum(other < number for other in families.get((before, after), ()))
            if lower and name not in found:
                found[name] = f"{before}{number - lower}{after}"
    return found


def _numbers(name: str) -> Iterator[tuple[str, int, str]]:
    """Every number in a name, with what stands before and behind it."""
    for match in re.finditer(r"\d{1,9}", name):
        yield name[: match.start()], int(match[0]), name[match.end() :]


def mapped(renames: Collection[IoRename], kind: str) -> Mapping[str, str]:
    """Original name -> name in the smaller model, of the inputs or outputs that are named otherwise, or are gone."""
    return {change.name: change.now for change in renames if change.kind == kind}
