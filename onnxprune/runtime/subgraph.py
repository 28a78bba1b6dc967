"""Runs of a part of a graph: from tensors that are at hand to requested outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from onnxprune.model import Model, control_flow
from onnxprune.model.run_order import NO_ROUTE, Course, Route, route_key
from onnxprune.model.tensors import dtype_of
from onnxprune.runtime.session import RunMode, Session
from onnxprune.typing import Array

AS_WRITTEN = RunMode()


def routes_of(
    model: Model, runs: Sequence[Mapping[str, Array]], *, threads: int = 0, limit: float = 0.0
) -> list[Route]:
    """Find the branches that every run takes in a flat model, of all Ifs outside of loops.

    Args:
        model: the model, laid out flat.
        runs: the inputs of every run.
        threads: of one operator; 0 is what ONNX Runtime takes.
        limit: seconds that a run may take; no limit where 0.

    Returns:
        A route per run.

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
        found = run_from(model, given, conditions, routes=ways, mode=RunMode(threads, limit=limit))
        for place, values in zip(alike, found, strict=True):
            for name, value in zip(choices, values, strict=True):
                routes[place][name] = "then_branch" if np.reshape(value, -1)[0] else "else_branch"
    return [*routes]


def boundary_inputs(
    model: Model, changed: Collection[str], dtypes: Mapping[str, int], route: Route = NO_ROUTE
) -> list[str] | None:
    """List what a part of the graph reads from outside of it.

    Args:
        model: the model, laid out flat.
        changed: the tensors that the nodes of the part make.
        dtypes: tensor name -> `TensorProto` data type.
        route: the branches that are taken.

    Returns:
        The names of tensors that are computed, or given; None where one of them is no array that can be held.
    """
    found = Course(model, route).boundary_inputs(changed)
    kinds = [dtypes.get(name) for name in found]
    return found if all(kind and dtype_of(kind).kind != "V" for kind in kinds) else None


def run_from(
    model: Model,
    held: Sequence[Mapping[str, Array]],
    outputs: Sequence[str],
    *,
    routes: Sequence[Route] = (),
    mode: RunMode = AS_WRITTEN,
) -> Iterator[list[Any]]:
    """Compute outputs from tensors that are held: only what lies between the two runs.

    Args:
        model: the model, laid out flat.
        held: per run, tensor name -> value, of the same tensors in all runs; also in place of what is stored.
        outputs: the tensors to compute.
        routes: the branches that every run takes; none are met where empty.
        mode: how it is run.

    Yields:
        Per run, the values of `outputs`.

    Raises:
        RunError: the runtime fails.
    """
    with ExitStack() as stack:
        ready: dict[Any, tuple[Session | None, Mapping[str, Array]]] = {}
        for given, route in zip(held, routes or [NO_ROUTE] * len(held), strict=True):
            if (key := route_key(route)) not in ready:
                course = Course(model, route)
                stored = {n: model.array(n) for n in outputs if n in model.initializers and n not in given}
                steps = sorted(course.ancestors(set(outputs) - stored.keys(), given.keys()))
                made = [n for n in dict.fromkeys(outputs) if n not in stored and n not in given]
                session = None
                if made:
                    part = course.subgraph(steps, _unmade(course, steps, given), made)
                    session = stack.enter_context(
                        Session(part, threads=mode.threads, fused=mode.fused, limit=mode.limit)
                    )
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


def run_changed(
    model: Model,
    held: Sequence[Mapping[str, Array]],
    names: Sequence[str],
    values: Sequence[Sequence[Any]],
    changed: Collection[str],
    *,
    routes: Sequence[Route] = (),
    mode: RunMode = AS_WRITTEN,
) -> Iterator[Sequence[Any]]:
    """Compute those of the outputs that a change of the model reaches, and take the others from before.

    Args:
        model: the changed model, laid out flat.
        held: per run, tensor name -> value, of tensors before the change, or of stored ones after it.
        names: the outputs.
        values: per run, the values of the outputs before the change.
        changed: the tensors that the change reaches.
        routes: the branches that every run takes; none are met where empty.
        mode: how it is run.

    Yields:
        Per run, the values of `names`.

    Raises:
        RunError: the runtime fails.
    """
    stale = [name for name in names if name in changed]
    if not stale:
        yield from values
        return
    ran = run_from(model, held, stale, routes=routes, mode=mode)
    for found, old in zip(ran, values, strict=True):
        fresh = dict(zip(stale, found, strict=True))
        yield [fresh.get(name, value) for name, value in zip(names, old, strict=True)]
