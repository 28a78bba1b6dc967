"""Which nodes compute what the outputs depend on: a flat graph less what only sizes and constants say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import NodeProto

from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.model.model import Model
from onnxprune.model.run_order import NO_ROUTE, Course, CourseStep
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.traits import traits_of
from onnxprune.typing import Shape


@dataclass(frozen=True, eq=False)
class DataFlow:
    """The steps of a flat graph, and the tensors between them that hold data.

    A tensor holds data if its values depend on those of a graph input; the size of a tensor does not count as its
    value.

    Attributes:
        model: the model, laid out flat.
        static: its shapes and types.
    """

    model: Model
    static: StaticInfo

    @cached_property
    def steps(self) -> Sequence[CourseStep]:
        """What runs, in order; a node with bodies is one step."""
        return Course(self.model, NO_ROUTE).steps

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The graph inputs."""
        return frozenset(v.name for v in self.model.proto.graph.input) - self.model.stored

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The graph outputs."""
        return frozenset(v.name for v in self.model.proto.graph.output)

    @cached_property
    def data(self) -> frozenset[str]:
        """The tensors that hold data."""
        found = set(self.inputs)
        for step in self.steps:
            if not _tells_sizes(step) and not found.isdisjoint(step.reads):
                found.update(o for o in step.output if o)
        return frozenset(found)

    @cached_property
    def producer(self) -> Mapping[str, int]:
        """Tensor -> the place of the step that makes it; graph inputs are not in it."""
        return {o: i for i, step in enumerate(self.steps) for o in step.output if o}

    @cached_property
    def consumers(self) -> Mapping[str, Sequence[int]]:
        """Tensor -> the places of the steps that read it, for whatever reason."""
        found: dict[str, list[int]] = {}
        for i, step in enumerate(self.steps):
            for name in step.reads:
                found.setdefault(name, []).append(i)
        return found

    @cached_property
    def data_reads(self) -> Sequence[Sequence[str]]:
        """For every step, the tensors that hold data and whose values it reads."""
        return [[] if _tells_sizes(step) else sorted(self.data.intersection(step.reads)) for step in self.steps]

    @cached_property
    def ancestors(self) -> Sequence[int]:
        """For every step, the places of the steps whose data it depends on, and its own, as bits of a number."""
        found: list[int] = []
        for i, names in enumerate(self.data_reads):
            bits = 1 << i
            for name in names:
                if name in self.producer:
                    bits |= found[self.producer[name]]
            found.append(bits)
        return found

    def node(self, tensor: str) -> NodeProto | None:
        """The node that makes a tensor; None for graph inputs, and for steps that have bodies."""
        place = self.producer.get(tensor)
        if place is None or len(self.steps[place].nodes) > 1:
            return None
        return self.steps[place].nodes[0]

    def depends(self, tensor: str, on: str) -> bool:
        """Whether the data of a tensor depend on those of another one, which a step makes or the graph is given."""
        place, other = self.producer.get(tensor), self.producer.get(on)
        if place is None:
            return tensor == on
        if other is None:
            return any(on in self.data_reads[i] for i in self.places(self.ancestors[place]))
        return bool(self.ancestors[place] >> other & 1)

    @staticmethod
    def places(bits: int) -> Iterator[int]:
        """The places that a number stands for, in order."""
        while bits:
            low = bits & -bits
            yield low.bit_length() - 1
            bits ^= low

    def between(self, entry: str, exit: str) -> list[int]:
        """The steps on the ways of data from one tensor to another, in order."""
        first = self.producer.get(entry, -1)
        reached, found = {entry}, list[int]()
        ways = self.ancestors[self.producer[exit]] >> (first + 1) << (first + 1)
        for i in self.places(ways):
            if not reached.isdisjoint(self.data_reads[i]):
                reached.update(o for o in self.steps[i].output if o)
                found.append(i)
        return found

    def dims(self, tensor: str) -> object:
        """The sizes of a tensor, with symbols where the run tells them; None where they are not known."""
        return self.static.dims.get(tensor, self.static.shapes.get(tensor))

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor holds floats."""
        dtype = self.static.dtypes.get(tensor)
        return dtype is not None and dtype in _FLOATS

    def alike(self, one: str, other: str) -> bool:
        """Whether two tensors have equal sizes and types."""
        dims = self.dims(one)
        return dims is not None and dims == self.dims(other) and self._dtype(one) == self._dtype(other)

    def _dtype(self, tensor: str) -> int | None:
        return self.static.dtypes.get(tensor)

    @cached_property
    def heavy(self) -> frozenset[int]:
        """The steps that multiply data with a matrix, or with more: of every loop, those that have such a node."""
        known = self.model.stored.union(o for i, s in enumerate(self.steps) if not self.data_reads[i] for o in s.output)
        constants = known - self.data
        places = (i for i, names in enumerate(self.data_reads) if names)
        return frozenset(i for i in places if any(self._is_heavy(node, constants) for node in self.steps[i].nodes))

    def _is_heavy(self, node: NodeProto, constants: frozenset[str]) -> bool:
        matrices = (name in constants and self._is_matrix(name) for name in node.input)
        return not traits_of(node).elementwise and any(matrices)

    def _is_matrix(self, tensor: str) -> bool:
        shape: Shape | None = self.static.shapes.get(tensor)
        return shape is not None and sum(n > 1 for n in shape) > 1 and self.static.dtypes.get(tensor) in WEIGHT_TYPES

    @cached_property
    def constants_read(self) -> Sequence[frozenset[str]]:
        """For every step, the stored tensors that it reads, or that what it reads is computed from without data."""
        stored, found = self.model.stored, dict[str, frozenset[str]]()
        result: list[frozenset[str]] = []
        for step in self.steps:
            names = frozenset[str]().union(*(found.get(n, frozenset({n} & stored)) for n in step.reads))
            result.append(names)
            if self.data.isdisjoint(step.output):
                made = {n for n in step.output if n} if not step.reads else set()
                found.update((o, names | made) for o in step.output if o)
        return result

    @cached_property
    def matrices_read(self) -> Sequence[frozenset[str]]:
        """For every step, the stored matrices that it multiplies data with, or that these are computed from."""
        return [
            frozenset(name for name in names if i in self.heavy and self._is_matrix(name))
            for i, names in enumerate(self.constants_read)
        ]

    def own_weights(self, places: Collection[int]) -> frozenset[str]:
        """The stored weights that steps at these places alone read.

        Args:
            places: the steps.
        """
        read = frozenset[str]().union(*(self.constants_read[i] for i in places))
        with_data = (i for i, names in enumerate(self.data_reads) if names and i not in places)
        elsewhere = frozenset[str]().union(*(self.constants_read[i] for i in with_data))
        return frozenset(n for n in read - elsewhere if self.static.dtypes.get(n) in WEIGHT_TYPES) - self.outputs

    def leaving(self, places: Collection[int], exit: str) -> Iterator[tuple[str, int | None]]:
        """What steps make that others read, whatever for, and the graph hands out, but for `exit`.

        Args:
            places: the steps.
            exit: a tensor that others may read.

        Yields:
            A tensor, and the place of a step that reads it; None for a graph output.
        """
        inside = set(places)
        for i in sorted(inside):
            for name in self.steps[i].output:
                if not name or name == exit:
                    continue
                if name in self.outputs:
                    yield name, None
                yield from ((name, at) for at in self.consumers.get(name, ()) if not self._stays(at, inside))

    def belonging(self, places: Collection[int], entry: str, exit: str) -> set[int]:
        """The steps outside that work for some steps alone: all data that they make is read inside, or handed out.

        Args:
            places: the steps inside.
            entry: what enters these; it and what it is made of stay outside.
            exit: what they make for others.

        Returns:
            Steps that lay out what is made inside as graph outputs, as caches are. If the steps inside hand out
            anything, also those that do so with what they compute for the steps inside, as of keys of an encoder.
        """
        inside, before = set(places), self.ancestors[self.producer[entry]] if entry in self.producer else 0
        for name in (name for i in places for name in self.steps[i].output if name and name != exit):
            for at in self.consumers.get(name, ()):
                inside |= self._handing_out(at, inside)
        may_hand_out = any(not self.outputs.isdisjoint(self.steps[i].output) for i in inside)
        for i in reversed(range(max(places))):
            made = [name for name in self.steps[i].output if name]
            if i in inside or before >> i & 1 or not self.data_reads[i]:
                continue
            if not may_hand_out and not self.outputs.isdisjoint(made):
                continue
            readers = {c for name in made for c in self.consumers.get(name, ())}
            others = [at for at in readers - inside if not self._stays(at, inside)]
            laid_out = [self._handing_out(at, inside | {i}) if may_hand_out else set[int]() for at in others]
            if readers & inside and all(laid_out):
                inside |= {i}.union(*laid_out)
        return inside - set(places)

    def _handing_out(self, place: int, inside: set[int]) -> set[int]:
        """The steps from one on, if they only lay out as graph outputs what is made inside; empty otherwise."""
        found, waiting = set[int](), [place]
        while waiting:
            if (at := waiting.pop()) in found | inside or self._stays(at, inside | found):
                continue
            if at in self.heavy:
                return set()
            found.add(at)
            waiting += [reader for name in self.steps[at].output for reader in self.consumers.get(name, ())]
        made = {name for i in found | inside for name in self.steps[i].output}
        read = {name for i in found for name in self.data_reads[i]}
        return found if read <= made | self.inputs and found else set()

    def _stays(self, place: int, inside: set[int]) -> bool:
        """Whether all that is made with what a step outside makes ends inside."""
        waiting, seen = [place], set(inside)
        while waiting:
            if (at := waiting.pop()) in seen:
                continue
            seen.add(at)
            made = self.steps[at].output
            if not self.outputs.isdisjoint(made):
                return False
            waiting += [consumer for name in made for consumer in self.consumers.get(name, ())]
        return True

    def is_read_outside(self, tensor: str, inside: Collection[int], entry: str) -> bool:
        """Whether values of a tensor reach an output past some steps; its sizes may.

        Args:
            tensor: what is read.
            inside: the places of the steps.
            entry: what enters these, and goes on past them.
        """
        waiting, seen = [tensor], set[int](inside)
        while waiting:
            name = waiting.pop()
            if name in self.outputs or name == entry:
                return True
            places = [i for i in self.consumers.get(name, ()) if i not in seen and not _tells_sizes(self.steps[i])]
            seen.update(places)
            waiting += [made for i in places for made in self.steps[i].output if made]
        return False


# Floats in which a stream of activations is handed on.
_FLOATS = frozenset((1, 10, 11, 16))


def _tells_sizes(step: CourseStep) -> bool:
    return traits_of(step.nodes[-1]).tells_sizes
