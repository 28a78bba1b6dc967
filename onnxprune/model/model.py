"""A model and its weights: look at any tensor, without holding more than one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.model import external as ext
from onnxprune.model import serialize
from onnxprune.model.couplings import Couplings
from onnxprune.model.serialize import Blob
from onnxprune.model.tensors import byte_size, is_external, tensors, to_buffer


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model; nothing changes it, whoever wants another makes a new one.

    Attributes:
        proto: read-only by convention. Tensors with external data keep it where it is.
        folder: what external data is relative to; None for a model that was given in memory.
        path: the file that it came from; never overwritten by `save`.
        values: producers of data that is not in the proto, by name of the initializer. The initializer says the
            shape and type (and stays marked as external, if the model is to be saved with external data). A
            producer is called each time that the data is needed, and its result is not kept.
        mended: what was put right in the file when it was loaded, a line each.
        couplings: what its surroundings demand of its sizes, as when it is one of several files.
    """

    proto: ModelProto
    folder: Path | None = None
    path: Path | None = None
    values: Mapping[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    mended: tuple[str, ...] = ()
    couplings: Couplings = field(default_factory=Couplings)

    @property
    def name(self) -> str:
        """What messages call the model."""
        return str(self.path) if self.path else "the model"

    @functools.cached_property
    def initializers(self) -> Mapping[str, TensorProto]:
        """The dense initializers of the main graph, by name."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @functools.cached_property
    def overridable(self) -> frozenset[str]:
        """The initializers that are graph inputs too: from IR version 4 on, defaults that a caller may override.

        Before, every initializer had to be listed, and none could be overridden.
        """
        if self.proto.ir_version < 4:
            return frozenset()
        return frozenset(value.name for value in self.proto.graph.input if value.name in self.stored)

    @functools.cached_property
    def stored(self) -> frozenset[str]:
        """The names of all initializers of the main graph, sparse ones included."""
        graph = self.proto.graph
        return frozenset((*self.initializers, *(sparse.values.name for sparse in graph.sparse_initializer)))

    @functools.cached_property
    def external(self) -> bool:
        """Whether any tensor's data lies in another file."""
        return bool(self.externals)

    @functools.cached_property
    def externals(self) -> tuple[TensorProto, ...]:
        """The tensors whose data lies in another file."""
        return tuple(filter(is_external, self._tensors))

    @functools.cached_property
    def _tensors(self) -> tuple[TensorProto, ...]:
        return tuple(tensors(self.proto))

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors (initializers and constants), as raw data."""
        return sum(map(byte_size, self._tensors))

    @functools.cached_property
    def digest(self) -> str:
        """Hash of all content, the same wherever and in which fields the initializers' data is stored."""
        content = hashlib.sha256()
        for piece in self.blob(canonical=True).pieces():
            content.update(piece)
        return f"sha256:{content.hexdigest()}"

    def array(self, tensor: str | TensorProto) -> np.ndarray:
        """The values of a tensor, read-only; data on disk is read again each time and not kept.

        Args:
            tensor: name of an initializer (a sparse one is made dense), or any tensor of the model.
        """
        if isinstance(tensor, str):
            if tensor not in self.initializers:
                return self._sparse(tensor)
            tensor = self.initializers[tensor]
        if self._is_made(tensor):
            return self.values[tensor.name]()
        return ext.read_tensor(tensor, self.folder)

    def _is_made(self, tensor: TensorProto) -> bool:
        # Tensors in attributes may bear any name, also one of an initializer.
        return tensor.name in self.values and self.initializers.get(tensor.name) is tensor

    def _sparse(self, name: str) -> np.ndarray:
        for sparse in self.proto.graph.sparse_initializer:
            if sparse.values.name == name:
                values, indices = self.array(sparse.values), self.array(sparse.indices)
                dense = np.zeros(tuple(sparse.dims), values.dtype)
                if indices.ndim == 1:
                    dense.reshape(-1)[indices] = values
                else:
                    dense[tuple(indices.T)] = values
                return dense
        raise ModelError(f"{self.name} has no initializer '{name}'")

    def data(self, tensor: TensorProto, raw: bool = False) -> Blob | None:
        """The data of a tensor where it is not in the proto; with `raw`, of any tensor but strings."""
        if self._is_made(tensor):
            return Blob(byte_size(tensor), lambda: (to_buffer(self.array(tensor), tensor),))
        if is_external(tensor):
            return ext.region_blob(tensor, self.folder)
        if not raw or tensor.data_type == TensorProto.STRING:
            return None
        if tensor.HasField("raw_data"):
            return Blob(byte_size(tensor), lambda: (tensor.raw_data,))
        return Blob(byte_size(tensor), lambda: (to_buffer(ext.read_tensor(tensor, None), tensor),))

    def blob(self, canonical: bool = False) -> Blob:
        """The serialised model with all data in it; canonical: all of it raw."""
        rest = self.with_data_placed(lambda tensor, data: setattr(tensor, "raw_data", b"".join(data.pieces())))
        entries = [serialize.tensor_blob(t, self.data(t, raw=canonical)) for t in self.proto.graph.initializer]
        return serialize.model_blob(rest, entries)

    def with_data_placed(self, put: Callable[[TensorProto, Blob], None]) -> ModelProto:
        """The proto; as a copy if external data other than of the main initializers had to find a new place."""
        if all(self.initializers.get(tensor.name) is tensor for tensor in self.externals):
            return self.proto
        rest = ModelProto.FromString(b"".join(serialize.model_blob(self.proto, []).pieces()))
        for tensor in filter(is_external, tensors(rest)):
            data = ext.region_blob(tensor, self.folder)
            bare = serialize.without_data(tensor)
            put(bare, data)
            tensor.CopyFrom(bare)
        return rest
