"""Activations of a model on calibration inputs: every node runs once, in slices, and only what is needed later is kept.

A walk takes all calibration runs through the graph side by side, a slice of nodes at a time, each run on its own route
through the branches. What a later slice needs is held in memory up to a bound, and in temporary files beyond it. Since
a slice is cut out of the model when it is asked for, weights that were changed in the meantime are those that it runs
with.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onnxprune.model import Model
from onnxprune.model.run_order import Course, Route, route_key
from onnxprune.runtime.session import Session
from onnxprune.runtime.subgraph import routes_of
from onnxprune.typing import Array

MEMORY = 2 << 30


class SpillBuffer:
    """Keeps arrays: in memory up to a bound, then in files of a temporary folder."""

    def __init__(self, memory: int = MEMORY) -> None:
        """Keep at most `memory` bytes in memory."""
        self._left = memory
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def keep(self, value: Array) -> Array:
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

    def release(self, value: Array) -> None:
        """Forget an array that `keep` gave."""
        if isinstance(value, np.memmap):
            Path(str(value.filename)).unlink()
        else:
            self._left += value.nbytes

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            self._folder.cleanup()


class _Way:
    """The steps of one route that are still to run."""

    def __init__(self, course: Course, requested: Counter[str], threads: int) -> None:
        self.course, self._requested, self._threads = course, requested, threads
        self._left = course.ancestors(course.known & requested.keys())

    def slice(self, tensors: Sequence[str], held: Mapping[str, Array]) -> Session | None:
        """What runs some steps, for `tensors` and what is read later; None where all are held.

        What cannot be held, as a sequence, is not handed on: its step stays among those that are to be run. So does a
        loop whose body will be asked again.
        """
        steps = self.course.steps
        todo = sorted(self.course.ancestors(tensors, held))
        loops = {i for i in todo if any(self._requested[name] > 0 for name in steps[i].inner)}
        self._left.difference_update(todo)
        self._left |= loops
        while todo:
            later = self.later()
            made = [o for i in todo for o in steps[i].output if o in later and i not in loops]
            made += [name for name in dict.fromkeys(tensors) if name not in held and name not in made]
            session = Session(self.course.subgraph(todo, held, made), threads=self._threads)
            again = {i for i in todo if not session.arrays.issuperset(set(made).intersection(steps[i].output))}
            if again <= self._left:
                return session
            session.close()
            self._left |= again
        return None

    def again(self, tensors: Collection[str], sources: Collection[str]) -> set[str]:
        """Put the steps between some tensors back among those that are still to run; what these make."""
        steps = self.course.ancestors(tensors, sources)
        self._left |= steps
        return {name for i in steps for name in self.course.steps[i].output}

    def later(self) -> set[str]:
        """What will be read, or asked for."""
        steps = self.course.steps
        later = {name for i in self._left for name in steps[i].reads}
        later.update(name for name, count in self._requested.items() if count > 0)
        return later


class ActivationReader:
    """Takes calibration runs through a model; tensors are asked for in graph order."""

    def __init__(
        self,
        model: Model,
        runs: Sequence[Mapping[str, Array]],
        requested: Sequence[str],
        *,
        routes: Sequence[Route] | None = None,
        memory: int = MEMORY,
        threads: int = 0,
    ) -> None:
        """Prepare a walk.

        Args:
            model: the model, which may be flat; its weights may be changed between two calls of `read`.
            runs: the inputs of every run.
            requested: all tensors that will be asked for, each as often as it will be.
            routes: the way of every run; the one that `model` takes where None.
            memory: bytes of activations that are kept in memory; what is more lies in temporary files.
            threads: of the runtime; 0 for all cores.

        Raises:
            RunError: the runtime fails at a condition.
        """
        self.routes = routes_of(model, runs, threads=threads) if routes is None else routes
        self._requested = Counter(requested)
        self._store = SpillBuffer(memory)
        ways: dict[tuple[tuple[str, str], ...], _Way] = {}
        for route in self.routes:
            if (key := route_key(route)) not in ways:
                ways[key] = _Way(Course(model, route), self._requested, threads)
        self._ways = [ways[route_key(route)] for route in self.routes]
        self._runs: list[dict[str, Array]] = [dict(run) for run in runs]
        self._given = frozenset(self._runs[0]) if self._runs else frozenset()

    def read(self, tensors: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """The values of `tensors`, run by run, without those of branches that a run does not take.

        All runs must be taken before the next call. What the body of a loop makes is one array of all steps.

        Raises:
            RunError: the runtime fails.
        """
        self._requested.subtract(tensors)
        with ExitStack() as stack:
            ready: dict[_Way, tuple[Session | None, list[str], set[str]]] = {}
            for way, held in zip(self._ways, self._runs, strict=True):
                if way not in ready:
                    here = [t for t in tensors if t in held or t in way.course.known]
                    session = way.slice(here, held)
                    ready[way] = stack.enter_context(session) if session else None, here, way.later()
                yield self._taken(held, *ready[way])

    def _taken(
        self, held: dict[str, Array], session: Session | None, tensors: Sequence[str], later: set[str]
    ) -> Mapping[str, Array]:
        """The values of `tensors` in one run, which holds on to what is read later."""
        values = dict[str, Any]()
        if session is not None:
            made = [n for n in session.outputs if n in session.arrays or n in tensors]
            values = dict(zip(made, session.run({name: held[name] for name in session.inputs}, made), strict=True))
            held.update((n, self._store.keep(values[n])) for n in made if n in later and n in session.arrays)
        asked = {t: values[t] if t in values else held[t] for t in tensors}
        for name in [n for n in held if n not in later]:
            value = held.pop(name)
            if name not in self._given:
                self._store.release(value)
        return asked

    def renew(self, tensors: Collection[str], sources: Sequence[str]) -> None:
        """Make tensors again when they are asked for next, with the weights that the model has by then.

        Args:
            tensors: what was made with other weights.
            sources: what they are made from, each requested once more than it was read.
        """
        self._requested.subtract(sources)
        for way, held in zip(self._ways, self._runs, strict=True):
            for name in way.again(tensors, sources).intersection(held):
                self._store.release(held.pop(name))

    @property
    def stacked(self) -> frozenset[str]:
        """The tensors that bodies of loops make, which come as arrays of all steps."""
        return frozenset[str]().union(*(way.course.stacked for way in set(self._ways)))

    def visits(self, tensors: Sequence[str]) -> Iterator[list[Mapping[str, Array]]]:
        """The values of `tensors`, run by run, at every visit to where they are made.

        None where the run takes another branch, one per step of a loop, else one.

        Raises:
            RunError: the runtime fails.
        """
        for way, values in zip(self._ways, self.read(tensors), strict=True):
            if len(values) < len(set(tensors)):
                yield []
                continue
            stacked = way.course.stacked.intersection(tensors)
            steps = min((len(values[name]) for name in stacked), default=1)
            yield [{n: v[i] if n in stacked else v for n, v in values.items()} for i in range(steps)]

    def __enter__(self) -> ActivationReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()
