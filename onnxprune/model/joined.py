"""Several models as one, and back: what they share is one tensor then, so that it is cut once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import GraphProto, ModelProto, OperatorSetIdProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.model.inline import inlined
from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.protos import copy_without, graphs
from onnxprune.model.run_order import reads
from onnxprune.model.tensors import is_external, tensors

# What stands between the name of a file and a name in it.
IN = "/"
_PARTS = ("initializer", "sparse_initializer", "node", "value_info", "input", "output")


@dataclass(frozen=True)
class Joined:
    """Models that are one.

    Attributes:
        model: all of them, side by side: nothing leads from one to another. A name of one that is not shared begins
            with the name of its file and `IN`; a single model is as it was.
        files: name -> the model that it was.
        shared: name -> name of a tensor in `model` -> its name in the file, where it has another than its own.
    """

    model: Model
    files: Mapping[str, Model]
    shared: Mapping[str, Mapping[str, str]]

    def beginning(self, file: str) -> str:
        """What the names of a file begin with; empty for a single one."""
        return file + IN if len(self.files) > 1 else ""

    def own_name(self, name: str) -> str:
        """What an input or output of `model` is called in its file."""
        return name.removeprefix(self.beginning(self.owner(name)))

    def owner(self, name: str) -> str:
        """The file that an input or output of `model` is of; empty for another name, and for that of a single model."""
        return next((file for file in self.files if len(self.files) > 1 and _is_of(name, file)), "")

    def split(self, model: Model) -> dict[str, Model]:
        """The files again, out of what became of `model`; their data is made when it is needed."""
        if len(self.files) == 1:
            return dict.fromkeys(self.files, model)
        return {name: _part(self, name, model) for name in self.files}


def join(files: Mapping[str, Model], root: Path) -> Joined:
    """Put models side by side into one.

    Weights of equal content are one tensor, whatever they are called.

    Args:
        files: name -> model; a name is no beginning of another.
        root: a folder in which all of them lie.

    Returns:
        The one model, and the way back.

    Raises:
        ModelError: they are made for different operator sets.
    """
    if len(files) == 1:
        return Joined(next(iter(files.values())), dict(files), {})
    files = {name: inlined(model) for name, model in files.items()}
    first = next(iter(files.values()))
    proto = ModelProto(ir_version=max(model.proto.ir_version for model in files.values()))
    proto.opset_import.extend(_opsets(files).values())
    proto.graph.name = "joined"
    known: dict[tuple[bytes, int], str] = {}
    shared: dict[str, dict[str, str]] = {}
    for name, model in files.items():
        same, counts = {}, Counter[bytes]()
        for tensor in filter(_is_weight, model.proto.graph.initializer):
            content = _content(model, tensor)
            # One that is stored twice in a file stays two, so that each has a name to come back to.
            joined = known.setdefault((content, counts[content]), name + IN + tensor.name)
            counts[content] += 1
            if not _is_of(joined, name):
                same[joined] = tensor.name
        shared[name] = same
        _add(proto.graph, name, model, same, root)
    return Joined(replace(first, proto=proto, folder=root, path=None), files, shared)


def _opsets(files: Mapping[str, Model]) -> dict[str, OperatorSetIdProto]:
    found: dict[str, OperatorSetIdProto] = {}
    for model in files.values():
        for opset in model.proto.opset_import:
            known = found.setdefault(opset.domain, opset)
            if known.version != opset.version:
                raise ModelError(
                    f"{model.name} is made for version {opset.version} of {opset.domain or 'ai.onnx'}, other files of "
                    f"its folder for {known.version}",
                    hint="export all of them for one version",
                )
    return found


def _is_weight(tensor: TensorProto) -> bool:
    """Whether a tensor is more than a number or a table of sizes."""
    return tensor.data_type in WEIGHT_TYPES and math.prod(tensor.dims) > 1


def _content(model: Model, tensor: TensorProto) -> bytes:
    """What two tensors have in common that are one."""
    made = hashlib.sha256(repr((tensor.data_type, tuple(tensor.dims))).encode())
    data = model.data(tensor, raw=True)
    for piece in data.pieces() if data is not None else ():
        made.update(piece)
    return made.digest()


def _add(graph: GraphProto, name: str, model: Model, same: Mapping[str, str], root: Path) -> None:
    """Add a file to the graph of all; `same` are its tensors that others have, too: name in the graph -> its own."""
    own = copy_without(model.proto)
    if model.folder is not None:
        below = model.folder.resolve().relative_to(root.resolve())
        for entry in (e for tensor in filter(is_external, tensors(own)) for e in tensor.external_data):
            if entry.key == "location":
                entry.value = (below / entry.value).as_posix()
    shared = {theirs: joined for joined, theirs in same.items()}
    _rename(own.graph, lambda text: shared.get(text, name + IN + text))
    for part in _PARTS:
        kept = (one for one in getattr(own.graph, part) if part != "initializer" or one.name not in same)
        getattr(graph, part).extend(kept)


def _rename(graph: GraphProto, renamed: Callable[[str], str]) -> None:
    """Give everything that has a name in a graph, bodies included, another; the empty name stays."""

    def give(text: str) -> str:
        return renamed(text) if text else ""

    for part in graphs(graph):
        for values in (part.input, part.output, part.value_info, part.initializer):
            for value in values:
                value.name = give(value.name)
        for sparse in part.sparse_initializer:
            sparse.values.name = give(sparse.values.name)
        for node in part.node:
            if node.name:  # an empty one may be set, or not
                node.name = give(node.name)
            node.input[:] = map(give, node.input)
            node.output[:] = map(give, node.output)


def _part(joined: Joined, name: str, model: Model) -> Model:
    """One of the files, out of what became of all of them."""
    original, graph = joined.files[name], model.proto.graph
    proto = copy_without(original.proto, *_PARTS)
    inputs = [value for value in graph.input if value.name.startswith(name + IN)]
    outputs = [value for value in graph.output if value.name.startswith(name + IN)]
    needed = {value.name for value in (*inputs, *outputs)}
    nodes = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(reads(node))
            needed.update(filter(None, node.output))  # the empty name is that of none
    part = proto.graph
    part.node.extend(reversed(nodes))
    part.input.extend(inputs)
    part.output.extend(outputs)
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    part.sparse_initializer.extend(sparse for sparse in graph.sparse_initializer if sparse.values.name in needed)
    part.value_info.extend(value for value in graph.value_info if value.name in needed)
    own = _own_names(joined, name, _all_names(part))
    values = {own[key]: make for key, make in model.values.items() if key in own}
    _rename(part, own.__getitem__)
    return replace(original, proto=proto, folder=model.folder, values=values)


def _own_names(joined: Joined, name: str, names: Mapping[str, None]) -> dict[str, str]:
    """Name in the model of all -> name in the file."""
    known = joined.shared[name]
    found = {key: known.get(key, key.removeprefix(name + IN)) for key in names if key in known or _is_of(key, name)}
    free = Names(found.values())
    for key in names:
        if key not in found:  # made while the weight of another file was cut
            owner = next((other for other in joined.files if _is_of(key, other)), "")
            found[key] = free.unique(key.removeprefix(owner + IN))
    return found


def _is_of(key: str, name: str) -> bool:
    return key.startswith(name + IN)


def _all_names(graph: GraphProto) -> dict[str, None]:
    """Every name in a graph, in its order."""
    found: dict[str, None] = {}

    def note(text: str) -> str:
        found[text] = None
        return text

    _rename(graph, note)
    return found
