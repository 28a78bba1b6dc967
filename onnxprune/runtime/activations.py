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

from onnxprune.model import Model, control_flow
from onnxprune.model.run_order import Course, Route
from onnxprune.model.tensors import dtype_of
from onnxprune.runtime.session import Session
from onnxprune.typing import Array

MEMORY = 4 << 30
# The route through a graph without branches.
NONE: Route = {}


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


class _Way:
    """The steps of one route that are still to run."""

    def __init__(self, course: Course, wanted: Counter[str], threads: int) -> None:
        self.course, self._wanted, self._threads = course, wanted, threads
        self._left = course.before(course.known & wanted.keys())

    def slice(self, tensors: Sequence[str], held: Mapping[str, Array]) -> Session | None:
        """What runs some steps, for `tensors` and what is read later; None where all are held.

        What cannot be held, as a sequence, is not handed on: its step stays among those that are to be run. So does a
        loop whose body will be asked again.
        """
        steps = self.course.steps
        todo = sorted(self.course.before(tensors, held))
        loops = {i for i in todo if any(self._wanted[name] > 0 for name in steps[i].inner)}
        self._left.difference_update(todo)
        self._left |= loops
        while todo:
            later = self.later()
            made = [o for i in todo for o in steps[i].output if o in later and i not in loops]
            made += [name for name in dict.fromkeys(tensors) if name not in held and name not in made]
            session = Session(self.course.part(todo, held, made), threads=self._threads)
            again = {i for i in todo if not session.arrays.issuperset(set(made).intersection(steps[i].output))}
            if again <= self._left:
                return session
            session.close()
            self._left |= again
        return None

    def later(self) -> set[str]:
        """What will be read, or asked for."""
        steps = self.course.steps
        later = {name for i in self._left for name in steps[i].reads}
        later.update(name for name, count in self._wanted.items() if count > 0)
        return later


class Walk:
    """Takes calibration runs through a model; tensors are asked for in graph order."""

    def __init__(
        self,
        model: Model,
        runs: Sequence[Mapping[str, Array]],
        wanted: Sequence[str],
        *,
        routes: Sequence[Route] | None = None,
        memory: int = MEMORY,
        threads: int = 0,
    ) -> None:
        """Prepare a walk.

        Args:
            model: the model, which may be flat; its weights may be changed between two calls of `take`.
            runs: the inputs of every run.
            wanted: all tensors that will be asked for, each as often as it will be.
            routes: the way of every run; the one that `model` takes where None.
            memory: bytes of activations that are kept in memory; what is more lies in temporary files.
            threads: of the runtime; 0 for all cores.

        Raises:
            RunError: the runtime fails at a condition.
        """
        self.routes = routes_of(model, runs, threads=threads) if routes is None else routes
        self._wanted = Counter(wanted)
        self._store = Store(memory)
        ways: dict[tuple[tuple[str, str], ...], _Way] = {}
        for route in self.routes:
            if (key := _key(route)) not in ways:
                ways[key] = _Way(Course(model, route), self._wanted, threads)
        self._ways = [ways[_key(route)] for route in self.routes]
        self._runs: list[dict[str, Array]] = [dict(run) for run in runs]
        self._given = frozenset(self._runs[0]) if self._runs else frozenset()

    def take(self, tensors: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """The values of `tensors`, run by run, without those of branches that a run does not take.

        All runs must be taken before the next call. What the body of a loop makes is one array of all steps.

        Raises:
            RunError: the runtime fails.
        """
        self._wanted.subtract(tensors)
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
            held.update((n, self._store.put(values[n])) for n in made if n in later and n in session.arrays)
        asked = {t: values[t] if t in values else held[t] for t in tensors}
        for name in [n for n in held if n not in later]:
            value = held.pop(name)
            if name not in self._given:
                self._store.drop(value)
        return asked

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
        for way, values in zip(self._ways, self.take(tensors), strict=True):
            if len(values) < len(set(tensors)):
                yield []
                continue
            stacked = way.course.stacked.intersection(tensors)
            steps = min((len(values[name]) for name in stacked), default=1)
            yield [{n: v[i] if n in stacked else v for n, v in values.items()} for i in range(steps)]

    def __enter__(self) -> Walk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()


def _key(route: Route) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(route.items()))


def routes_of(model: Model, runs: Sequence[Mapping[str, Array]], *, threads: int = 0) -> list[Route]:
    """The branches that every run takes in a flat model, of all Ifs outside of loops.

    Raises:
        RunError: the runtime fails.
    """
    routes: list[dict[str, str]] = [{} for _ in runs]
    waiting = list(range(len(runs))) if any(map(control_flow.is_flat, model.proto.graph.node)) else []
    while waiting:
        alike = [i for i in waiting if routes[i] == routes[waiting[0]]]
        choices = Course(model, dict(routes[waiting[0]])).choices
        if not choices:
            waiting = [i for i in waiting if i not in alike]
            continue
        conditions = list(choices.values())
        given, ways = [runs[i] for i in alike], [dict(routes[i]) for i in alike]
        for place, values in zip(alike, resumed(model, given, conditions, routes=ways, threads=threads), strict=True):
            for name, value in zip(choices, values, strict=True):
                routes[place][name] = "then_branch" if np.reshape(value, -1)[0] else "else_branch"
    return [*routes]


def entering(
    model: Model, changed: Collection[str], dtypes: Mapping[str, int], route: Route = NONE
) -> list[str] | None:
    """What the nodes that make the tensors `changed` read of others that are computed, or given.

    None where something that is read is no array that can be held.
    """
    found = Course(model, route).entering(changed)
    kinds = [dtypes.get(name) for name in found]
    return found if all(kind and dtype_of(kind).kind != "V" for kind in kinds) else None


def resumed(
    model: Model,
    held: Sequence[Mapping[str, Array]],
    outputs: Sequence[str],
    *,
    routes: Sequence[Route] = (),
    threads: int = 0,
) -> Iterator[list[Any]]:
    """The values of `outputs`, run by run, from the tensors that are held: only what lies between them runs."""
    with ExitStack() as stack:
        ready: dict[Any, tuple[Session | None, Mapping[str, Array]]] = {}
        for given, route in zip(held, routes or [NONE] * len(held), strict=True):
            if (key := _key(route)) not in ready:
                course = Course(model, route)
                stored = {n: model.array(n) for n in outputs if n in model.initializers and n not in given}
                steps = sorted(course.before(set(outputs) - stored.keys(), given.keys()))
                made = [n for n in dict.fromkeys(outputs) if n not in stored and n not in given]
                session = None
                if made:
                    part = course.part(steps, _unmade(course, steps, given), made)
                    session = stack.enter_context(Session(part, threads=threads))
                ready[key] = session, stored
            session, known = ready[key]
            values: dict[str, Any] = {**given, **known}
            if session is not None:
                ran = session.run({name: given[name] for name in session.inputs})
                values.update(zip(session.outputs, ran, strict=True))
            yield [values[name] for name in outputs]


def _unmade(course: Course, steps: Sequence[int], given: Mapping[str, Array]) -> dict[str, Array]:
    """The values that are given, less those of tensors that some of the steps make all the same."""
    made = {o for i in steps for o in (*course.steps[i].output, *course.steps[i].inner)}
    return {name: value for name, value in given.items() if name not in made}


def rerun(
    model: Model,
    held: Sequence[Mapping[str, Array]],
    names: Sequence[str],
    values: Sequence[Sequence[Any]],
    changed: Collection[str],
    *,
    routes: Sequence[Route] = (),
    threads: int = 0,
) -> Iterator[Sequence[Any]]:
    """The outputs `names`, run by run: those that are `changed` as `resumed` gives them, the others from `values`."""
    anew = [name for name in names if name in changed]
    if not anew:
        yield from values
        return
    ran = resumed(model, held, anew, routes=routes, threads=threads)
    for found, old in zip(ran, values, strict=True):
        fresh = dict(zip(anew, found, strict=True))
        yield [fresh.get(name, value) for name, value in zip(names, old, strict=True)]


def tappable(model: Model, routes: Sequence[Route]) -> frozenset[str]:
    """The tensors that a walk along some routes can take: those outside of branches that no run takes."""
    ways = {_key(route): route for route in routes}
    return frozenset[str]().union(*(Course(model, route).known for route in ways.values()))


def counted(routes: Sequence[Route]) -> dict[str, dict[str, int]]:
    """First output of every If that is met -> branch -> how many of the runs take it."""
    found: dict[str, dict[str, int]] = {}
    for route in routes:
        for name, branch in route.items():
            taken = found.setdefault(name, {})
            taken[branch] = taken.get(branch, 0) + 1
    return found
