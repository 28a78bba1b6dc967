"""Activations of a model on calibration inputs: every node runs once, in slices, and only what is needed later is kept.

A walk takes all calibration runs through the graph side by side, a slice of nodes at a time. What a later slice needs
is held in memory up to a bound, and in temporary files beyond it. Since a slice is cut out of the model when it is
asked for, weights that were changed in the meantime are those that it runs with.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.labels import Array
from onnxprune.model import Model
from onnxprune.runtime import Session, dtype_of
from onnxprune.wiring import captured

MEMORY = 4 << 30


class Store:
    """Keeps arrays: in memory up to a bound, then in files of a temporary folder."""

    def __init__(self, memory: int = MEMORY) -> None:
        """Keep at most `memory` bytes in memory."""
        self._left = memory
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def put(self, value: Array) -> Array:
        """The array, or one of the same values that lies in a file."""
        if value.nbytes <= self._left or not value.nbytes:
            self._left -= value.nbytes
            return value
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="onnxprune-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.npy"
        np.save(path, value, allow_pickle=False)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def drop(self, value: Array) -> None:
        """Forget an array that `put` gave."""
        if isinstance(value, np.memmap):
            Path(str(value.filename)).unlink()
        else:
            self._left += value.nbytes

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()


class Walk:
    """Takes calibration runs through a model; tensors are asked for in graph order."""

    def __init__(
        self,
        model: Model,
        runs: Sequence[Mapping[str, Array]],
        wanted: Sequence[str],
        *,
        memory: int = MEMORY,
        threads: int = 0,
    ) -> None:
        """Prepare a walk.

        Args:
            model: the model; its weights may be changed between two calls of `take`.
            runs: the inputs of every run.
            wanted: all tensors that will be asked for, each as often as it will be.
            memory: bytes of activations that are kept in memory; what is more lies in temporary files.
            threads: of the runtime; 0 for all cores.
        """
        self._threads = threads
        self._model = model
        self._wanted = Counter(wanted)
        self._store = Store(memory)
        self._nodes = model.proto.graph.node
        self._left = before(model, self._wanted)
        self._runs: list[dict[str, Array]] = [dict(run) for run in runs]
        self._given = frozenset(self._runs[0]) if self._runs else frozenset()

    def take(self, tensors: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """The values of `tensors`, run by run; all runs must be taken before the next call.

        Raises:
            RunError: the runtime fails.
        """
        self._wanted.subtract(tensors)
        todo = sorted(before(self._model, tensors, self._runs[0] if self._runs else ()))
        self._left.difference_update(todo)
        if not todo:
            later = self._later()
            for held in self._runs:
                asked = {t: held[t] for t in tensors}
                self._forget(held, later)
                yield asked
            return
        with self._slice(todo, tensors) as session:
            later = self._later()
            made = [n for n in session.outputs if n in session.arrays or n in tensors]
            for held in self._runs:
                feeds = {name: held[name] for name in session.inputs}
                values = dict(zip(made, session.run(feeds, made), strict=True))
                asked = {t: values[t] if t in values else held[t] for t in tensors}
                held.update((n, self._store.put(values[n])) for n in made if n in later and n in session.arrays)
                self._forget(held, later)
                yield asked  # last, so that a consumer who stops at the last run leaves nothing undone

    def _slice(self, todo: Sequence[int], tensors: Sequence[str]) -> Session:
        """What runs some nodes, for `tensors` and what is read later.

        What cannot be held, as a sequence, is not handed on: its node stays among those that are to be run.
        """
        while True:
            later = self._later().union(tensors)
            made = [o for i in todo for o in self._nodes[i].output if o in later]
            session = Session(part(self._model, todo, self._runs[0], made), threads=self._threads)
            again = {i for i in todo if not session.arrays.issuperset(later.intersection(self._nodes[i].output))}
            if again <= self._left:
                return session
            session.close()
            self._left |= again

    def _later(self) -> set[str]:
        """What will be read, or asked for."""
        later = {name for i in self._left for name in reads(self._nodes[i])}
        later.update(name for name, count in self._wanted.items() if count > 0)
        return later

    def _forget(self, held: dict[str, Array], later: set[str]) -> None:
        for name in [n for n in held if n not in later]:
            value = held.pop(name)
            if name not in self._given:
                self._store.drop(value)

    def __enter__(self) -> Walk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()


def before(model: Model, tensors: Iterable[str], held: Collection[str] = ()) -> set[int]:
    """The nodes that compute `tensors`, by their places in the graph, where the tensors `held` are known."""
    nodes = model.proto.graph.node
    maker = {o: i for i, node in enumerate(nodes) for o in node.output if o and o not in held}
    found: set[int] = set()
    open_names = list(tensors)
    while open_names:
        index = maker.get(open_names.pop())
        if index is not None and index not in found:
            found.add(index)
            open_names.extend(reads(nodes[index]))
    return found


def part(model: Model, nodes: Iterable[int], held: Mapping[str, Array], outputs: Sequence[str]) -> Model:
    """A model of some of the nodes, from values that are held to `outputs`."""
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    graph, source = proto.graph, model.proto.graph
    graph.name = "slice"
    graph.node.extend(source.node[i] for i in nodes)
    read = {name for node in graph.node for name in reads(node)}.union(outputs)
    graph.initializer.extend(t for t in source.initializer if t.name in read)
    graph.sparse_initializer.extend(s for s in source.sparse_initializer if s.values.name in read)
    for name in sorted(read & held.keys()):
        kind = helper.np_dtype_to_tensor_dtype(held[name].dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, [None] * held[name].ndim))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return replace(model, proto=proto)


def after(model: Model, tensors: Iterable[str]) -> set[str]:
    """`tensors`, and all that is computed from them."""
    found = set(tensors)
    for node in model.proto.graph.node:
        if not found.isdisjoint(reads(node)):
            found.update(node.output)
    return found - {""}


def entering(model: Model, changed: Collection[str], dtypes: Mapping[str, int]) -> list[str] | None:
    """What the nodes that make the tensors `changed` read of others that are computed, or given.

    None where something that is read is no array that can be held.
    """
    graph, changed = model.proto.graph, frozenset(changed)
    constants = model.initializers.keys() | {o for n in graph.node if not n.input for o in n.output}
    others = tappable(model) - changed - constants
    nodes = [node for node in graph.node if not changed.isdisjoint(node.output)]
    found = list(dict.fromkeys(name for node in nodes for name in reads(node) if name in others))
    kinds = [dtypes.get(name) for name in found]
    return found if all(kind and dtype_of(kind).kind != "V" for kind in kinds) else None


def resumed(
    model: Model, held: Sequence[Mapping[str, Array]], outputs: Sequence[str], *, threads: int = 0
) -> Iterator[list[Any]]:
    """The values of `outputs`, run by run, from the tensors that are held: only what lies between them runs."""
    nodes = sorted(before(model, outputs, held[0].keys()))
    made = {output for index in nodes for output in model.proto.graph.node[index].output}
    known = [{name: value for name, value in values.items() if name not in made} for values in held]
    with Session(part(model, nodes, known[0], outputs), threads=threads) as session:
        for given in known:
            yield session.run({name: given[name] for name in session.inputs}, outputs)


def rerun(
    model: Model,
    held: Sequence[Mapping[str, Array]],
    names: Sequence[str],
    values: Sequence[Sequence[Any]],
    changed: Collection[str],
    *,
    threads: int = 0,
) -> Iterator[Sequence[Any]]:
    """The outputs `names`, run by run: those that are `changed` as `resumed` gives them, the others from `values`."""
    anew = [name for name in names if name in changed]
    if not anew:
        yield from values
        return
    for found, old in zip(resumed(model, held, anew, threads=threads), values, strict=True):
        fresh = dict(zip(anew, found, strict=True))
        yield [fresh.get(name, value) for name, value in zip(names, old, strict=True)]


def tappable(model: Model) -> frozenset[str]:
    """The tensors that a walk can take: those of the main graph, not of bodies."""
    graph = model.proto.graph
    return frozenset([*(v.name for v in graph.input), *(o for node in graph.node for o in node.output if o)])


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, in its bodies too."""
    yield from (name for name in node.input if name)
    yield from captured(node)
