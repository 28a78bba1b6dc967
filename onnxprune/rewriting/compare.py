"""Agreement of a smaller model's outputs with the original's, without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from onnxprune.model import Model, last_floats
from onnxprune.model.flatten import flattened
from onnxprune.model.run_order import Course, Route
from onnxprune.rewriting import io_changes
from onnxprune.rewriting.removal import Removal
from onnxprune.runtime import Agreement, AgreementAccumulator, Session, routes_of, run_from
from onnxprune.typing import Runs


def agreement(removal: Removal, other: Model, runs: Runs) -> Agreement:
    """Compare the outputs of the original with those of a smaller model.

    Outputs that are ids are judged by the last floats before them.

    Args:
        removal: what was removed, with the traced original.
        other: the smaller model.
        runs: inputs for the original.

    Returns:
        How far the outputs agree.

    Raises:
        RunError: the runtime fails.
    """
    with Session(removal.groups.model) as one, Session(other) as two:
        names = [name for name in one.outputs if name in two.outputs]
        tally = AgreementAccumulator(names)
        for feeds, (old, new) in zip(runs, _before_ids(removal, other, runs), strict=True):
            wanted = io_changes.outputs(removal, names, one.run(feeds, names))
            tally.add([*wanted, *old], [*two.run(io_changes.feeds(removal, feeds), names), *new])
    return tally.agreement()


def _before_ids(removal: Removal, other: Model, runs: Runs) -> Iterator[tuple[list[Any], list[Any]]]:
    """The last floats before outputs that are ids, in both models, run by run; none where all outputs are floats."""
    original = removal.groups.tracing.model
    names = last_floats(original.proto.graph, removal.groups.static.dtypes)
    if not names:
        yield from (([], []) for _ in runs)
        return
    routes, flat = routes_of(original, runs), flattened(other)
    names = [n for n in names if _is_reached(n, [original, flat], routes)]
    given = [io_changes.feeds(removal, feeds) for feeds in runs]
    olds, news = run_from(original, runs, names, routes=routes), run_from(flat, given, names, routes=routes)
    for old, new in zip(olds, news, strict=True):
        yield io_changes.outputs(removal, names, old), new


def _is_reached(name: str, models: Sequence[Model], routes: Sequence[Route]) -> bool:
    """Whether every run makes a tensor, once, in all of the models."""
    ways = {tuple(sorted(route.items())): route for route in routes}.values()
    courses = [Course(model, way) for model in models for way in ways]
    return all(name in course.known - course.stacked for course in courses)
