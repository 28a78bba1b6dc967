"""From a plan to the smaller model: slice every weight by its labels, resize nodes, drop dead ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import Model, Names
from onnxprune.model.flatten import closed, settle
from onnxprune.model.graph import captured, first_output, remove_dead
from onnxprune.model.protos import copy_without
from onnxprune.rewriting.removal import Removal
from onnxprune.tracing import Axes, Groups, NodeView, Resize
from onnxprune.typing import Array, Shape

# Weight -> its copies (new name -> labels, None for whole): uses that are cut alike share one.
Versions = Mapping[str, Mapping[str, Axes | None]]


def rewrite(groups: Groups, removed: Array) -> Model:
    """The model without the classes `removed`.

    Weights of a model with external data stay on disk and are sliced when they are written. Everything that does
    not shrink comes out as it went in.
    """
    return nested(rewritten(Removal(groups, removed)))


def rewritten(removal: Removal) -> Model:
    """The smaller model with its bodies laid out flat, as they were traced; not tidied up yet."""
    return Rewriting(removal.groups.tracing.model, removal).run()


def nested(model: Model, *, tidied: bool = True) -> Model:
    """A model that was rewritten, or fitted after that, as it is handed out; it is changed in place."""
    model = closed(model)
    graph = model.proto.graph
    if tidied:
        remove_dead(graph, model.overridable)
    if model.proto.ir_version < 4:  # where every initializer must also be an input
        listed = {value.name for value in graph.input}
        graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in graph.initializer
            if t.name not in listed
        )
    return replace(model)  # without what it remembered of its graph


def _sparse(dense: Array, like: onnx.SparseTensorProto) -> onnx.SparseTensorProto:
    """`dense` in coordinates, under the name of `like`."""
    index = np.flatnonzero(dense)
    values = numpy_helper.from_array(np.ascontiguousarray(dense.reshape(-1)[index]), like.values.name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(index.astype(np.int64)), dense.shape)


@dataclass
class Rewriting:
    """Builds the new graph, part by part."""

    model: Model
    removal: Removal
    values: dict[str, Callable[[], Array]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> Groups:
        """What was traced of the model."""
        return self.removal.groups

    @cached_property
    def names(self) -> Names:
        """The names that are taken."""
        return Names(self.groups.model.proto.graph, self.model.proto.graph)

    def unique(self, stem: str) -> str:
        """A name that nothing has."""
        return self.names.unique(stem)

    def remains(self, name: str, axes: Axes) -> Array:
        """What remains of a weight of these labels."""
        value = self.groups.tracing.stored_value(name)
        if value is None:
            raise ModelError(f"the value of weight {name!r} is unknown")
        return self.removal.sliced(value, axes)

    def sizes(self, old: Shape, axes: Axes) -> Shape:
        """The sizes that remain of a weight."""
        return self.removal.shape(old, axes)

    def is_cut(self, key: str) -> bool:
        """Whether a weight, as one of its uses reads it, is another afterwards."""
        return any(self.removal.loses(labels) for labels in self.groups.tracing.axes[key])

    def run(self) -> Model:
        """Build the new model, flat."""
        old = self.model.proto
        proto = copy_without(old, "initializer", "sparse_initializer", "node", "value_info")
        graph = proto.graph
        versions = self._versions()
        self._weights(graph, versions)
        self._nodes(graph, versions)
        self._infos(graph, versions)
        settle(graph, self.groups.tracing.branch_taken, self._is_stale)
        return Model(proto, self.model.folder, self.model.path, self.values)

    # --- weights -----------------------------------------------------------------------------------------

    def _weights(self, graph: onnx.GraphProto, versions: Versions) -> None:
        for tensor in self.model.proto.graph.initializer:
            for name, axes in (versions.get(tensor.name) or {tensor.name: None}).items():
                if axes is None:
                    graph.initializer.add().CopyFrom(tensor)
                    graph.initializer[-1].name = name
                    if tensor.name in self.model.values:
                        self.values[name] = self.model.values[tensor.name]
                else:
                    self._slice(graph, tensor, name, axes)
        for sparse in self.model.proto.graph.sparse_initializer:
            name = sparse.values.name
            if not versions.get(name):
                graph.sparse_initializer.add().CopyFrom(sparse)
                continue
            for new, axes in versions[name].items():
                value = self.model.array(name) if axes is None else self.remains(name, axes)
                graph.sparse_initializer.append(_sparse(value, sparse))
                graph.sparse_initializer[-1].values.name = new

    def _slice(self, graph: onnx.GraphProto, tensor: TensorProto, name: str, axes: Axes) -> None:
        new = graph.initializer.add()
        make = partial(self.remains, tensor.name, axes)

        if tensor.data_location == TensorProto.EXTERNAL:
            new.CopyFrom(tensor)
            new.name = name
            new.dims[:] = self.sizes(tuple(tensor.dims), axes)
            self.values[name] = make
        else:
            new.CopyFrom(numpy_helper.from_array(make(), name))
            new.doc_string = tensor.doc_string
            new.metadata_props.extend(tensor.metadata_props)

    def _versions(self) -> Versions:
        tracing = self.groups.tracing
        found: dict[str, dict[str, Axes | None]] = {}
        seen: dict[tuple[str, bytes], str] = {}
        touched = {name for key, name in tracing.weights.items() if self.is_cut(key)}
        for name in sorted(touched & tracing.duplicated_per_use):
            # Uses that no rule asked labels for keep the whole tensor.
            if tracing.has_whole_use(name):
                found[name] = {name: None}
                seen[name, b""] = name
        for key, axes in tracing.weights_axes():
            name = tracing.weights[key]
            if name not in touched:
                continue
            masks = [self.removal.removed(labels) for labels in axes]
            is_cut = self.is_cut(key)
            content = b"".join(m.tobytes() if m.any() else b"-" for m in masks) if is_cut else b""
            new = seen.get((name, content))
            if new is None:
                copies = found.setdefault(name, {})
                new = name if not copies else self.unique(f"{name}_pruned")
                copies[new] = axes if is_cut else None
                seen[name, content] = new
            self.renamed[key] = new
        return found

    # --- nodes -------------------------------------------------------------------------------------------

    def _nodes(self, graph: onnx.GraphProto, versions: Versions) -> None:
        traced = self.groups.tracing.by_output
        constants: dict[str, Array] = {}
        for node in self.model.proto.graph.node:
            if node.output and versions.get(node.output[0]) and not self._is_computed(node.output[0]):
                self._constant(graph, node, versions[node.output[0]], constants)
                continue
            new = graph.node.add()
            new.CopyFrom(node)
            for slot, name in enumerate(node.output):
                if self._is_computed(name) and versions.get(name):
                    new.output[slot] = self.unique(f"{name}_whole")
                    constants[name] = self.remains(name, self.groups.tracing.axes[name])
            view, rule = traced.get(first_output(node), (None, None))
            if view is None:
                continue
            for slot, name in enumerate(node.input):
                if name in self.groups.tracing.duplicated_per_use:
                    new.input[slot] = self.renamed.get(self.groups.tracing.use_key(node, slot), name)
            if rule is not None and rule.resize is not None and self._is_touched(view):
                del graph.node[-1]
                graph.node.extend(self._resized(view, rule.resize, new, constants))
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(value, name))

    def _is_computed(self, name: str) -> bool:
        return name in self.groups.tracing.folded.producers

    def _constant(
        self,
        graph: onnx.GraphProto,
        node: onnx.NodeProto,
        copies: Mapping[str, Axes | None],
        constants: dict[str, Array],
    ) -> None:
        """The copies of a weight that a node makes."""
        source = node.output[0]
        for name, axes in copies.items():
            new = graph.node.add()
            new.CopyFrom(node)
            new.output[0] = name
            if name != source:
                new.name = self.unique(f"{node.name}_pruned") if node.name else ""
            if axes is not None and node.op_type == "ConstantOfShape":
                new.input[0] = self.unique(f"{name}_shape")
                constants[new.input[0]] = np.array(self.sizes(self.groups.static.shapes[source], axes), np.int64)
            elif axes is not None:
                attribute = helper.make_attribute("value", numpy_helper.from_array(self.remains(source, axes)))
                del new.attribute[:]
                new.attribute.append(attribute)

    def _is_touched(self, view: NodeView) -> bool:
        around = itertools.chain(*self.removal.around(view))
        return any(self.removal.loses(labels) for axes in around if axes for labels in axes)

    def _is_stale(self, node: onnx.NodeProto) -> bool:
        """Whether a node that is never run reads a tensor that shrinks: it would no longer be valid."""
        tracing = self.groups.tracing
        names = (*node.input, *captured(node), *(tracing.use_key(node, slot) for slot in range(len(node.input))))
        return any(self.removal.loses(labels) for name in names for labels in tracing.axes.get(name, ()))

    def _resized(
        self, view: NodeView, resize: Resize, new: onnx.NodeProto, constants: dict[str, Array]
    ) -> Sequence[onnx.NodeProto]:
        """The nodes that stand for the copy `new` of a node whose sizes change."""
        edit = self.removal.resized(view, resize, new, self.unique, constants)
        return [*edit.before, edit.node, *edit.after]

    # --- the rest ----------------------------------------------------------------------------------------

    def _infos(self, graph: onnx.GraphProto, versions: Versions) -> None:
        """Sizes as they are now, of whatever the file declares: inputs, outputs and what is in between."""
        graph.value_info.extend(self.model.proto.graph.value_info)
        stored = {t.name: tuple(t.dims) for t in graph.initializer}
        copies = {name: axes for made in versions.values() for name, axes in made.items()}
        for info in (*graph.value_info, *graph.input, *graph.output):
            axes = copies.get(info.name, self.groups.tracing.axes.get(info.name))
            shape = self.groups.static.shapes.get(info.name)
            if shape is None or not info.type.tensor_type.HasField("shape"):
                continue
            sizes = stored.get(info.name, shape if axes is None else self.removal.shape(shape, axes))
            for dim, old, size in zip(info.type.tensor_type.shape.dim, shape, sizes, strict=False):
                if old != size:
                    fixed = dim.HasField("dim_value")
                    dim.Clear()
                    if fixed:
                        dim.dim_value = size
