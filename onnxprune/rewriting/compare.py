"""Agreement of a smaller model's outputs with the original's, without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from onnxprune.model import Model, last_floats
from onnxprune.model.flatten import flattened
from onnxprune.model.run_order import Course, Route
from onnxprune.rewriting import io_changes
from onnxprune.rewriting.removal import Removal
from onnxprune.runtime import Agreement, AgreementAccumulator, Session, routes_of, run_from
from onnxprune.tracing import Groups
from onnxprune.typing import Runs


def agreement(
    removal: Removal, other: Model, runs: Runs, originals: Iterable[Mapping[str, Any]] | None = None
) -> Agreement:
    """Compare the outputs of the original with those of a smaller model.

    Outputs that are ids are judged by the last floats before them.

    Args:
        removal: what was removed, with the traced original.
        other: the smaller model.
        runs: inputs for the original.
        originals: what `original_outputs` gives of them, where several models are compared.

    Returns:
        How far the outputs agree.

    Raises:
        RunError: the runtime fails.
    """
    names = [value.name for value in removal.groups.model.proto.graph.output]
    with Session(other) as session:
        names = [name for name in names if name in session.outputs]
        tally = AgreementAccumulator(names)
        olds = original_outputs(removal.groups, runs) if originals is None else originals
        for feeds, old, (floats, new) in zip(runs, olds, _before_ids(removal, other, runs), strict=True):
            wanted = io_changes.outputs(removal, [*names, *floats], [old[name] for name in (*names, *floats)])
            tally.add(wanted, [*session.run(io_changes.feeds(removal, feeds), names), *new])
    return tally.agreement()


def original_outputs(groups: Groups, runs: Runs) -> Iterator[dict[str, Any]]:
    """Run the original for a comparison.

    Args:
        groups: the traced original.
        runs: its inputs.

    Yields:
        Run by run, name -> value of every output, and of the last floats before outputs that are ids.
    """
    original, floats = groups.tracing.model, _last_floats(groups)
    routes = routes_of(original, runs) if floats else []
    floats = [name for name in floats if _is_reached(name, [original], routes)]
    before = run_from(original, runs, floats, routes=routes) if floats else ([] for _ in runs)
    with Session(groups.model) as session:
        names = session.outputs
        for feeds, values in zip(runs, before, strict=True):
            yield dict(zip([*names, *floats], [*session.run(feeds, names), *values], strict=True))


def _last_floats(groups: Groups) -> list[str]:
    return last_floats(groups.tracing.model.proto.graph, groups.static.dtypes)


def _before_ids(removal: Removal, other: Model, runs: Runs) -> Iterator[tuple[list[str], list[Any]]]:
    """The last floats before outputs that are ids, in the smaller model, run by run; none where all are floats."""
    names = _last_floats(removal.groups)
    if not names:
        yield from (([], []) for _ in runs)
        return
    original, flat = removal.groups.tracing.model, flattened(other)
    routes = routes_of(original, runs)
    names = [n for n in names if _is_reached(n, [original, flat], routes)]
    given = [io_changes.feeds(removal, feeds) for feeds in runs]
    for new in run_from(flat, given, names, routes=routes):
        yield names, list(new)


def _is_reached(name: str, models: Sequence[Model], routes: Sequence[Route]) -> bool:
    """Whether every run makes a tensor, once, in all of the models."""
    ways = {tuple(sorted(route.items())): route for route in routes}.values()
    courses = [Course(model, way) for model in models for way in ways]
    return all(name in course.known - course.stacked for course in courses)
