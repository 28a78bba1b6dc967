"""Times of operators, each at some widths, measured by ONNX Runtime's profiler."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from onnxprune.cost.latency.operators import Micrograph, Operator
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model, load
from onnxprune.runtime import Deployed, Setting
from onnxprune.typing import Array

# Elements of all tensors that are measured in one session.
ELEMENTS = 1 << 25
# Runs of a session: at least, at most, and for how many seconds between.
FEWEST, MOST, SECONDS = 6, 60, 0.6
# A small graph is run more often than that: until it has run so many nodes, since clocks count whole microseconds.
NODES = 20_000
WARM = 2
# The profiler counts whole microseconds, and leaves out what is less.
TRUNCATED = 0.5e-6

_KERNEL = "_kernel_time"
# Of float16 nodes that the CPU runs in float32, the runtime makes nodes of its own.
_MARK = re.compile(r"(?:InsertedPrecisionFreeCast_)?p(\d+)_")

# An operator, and the lengths of its letters.
Point = tuple[Operator, tuple[int, ...]]


def measure_operators(points: Sequence[Point], setting: Setting, like: onnx.ModelProto, *, seed: int = 0) -> Array:
    """float64[points]: seconds; NaN where the runtime cannot run the operator alone.

    All points of a session run in turn, so that none finds its data in the cache, as in a model.

    Args:
        points: what to measure.
        setting: what it runs on.
        like: a model of the same operator sets.
        seed: for the order.
    """
    seconds = np.full(len(points), np.nan)
    for part in _parts(points, np.random.default_rng(seed).permutation(len(points))):
        seconds[part] = _measured([points[i] for i in part], setting, like)
    return seconds


def _parts(points: Sequence[Point], order: Array) -> Iterator[list[int]]:
    part: list[int] = []
    held = 0
    for index in order:
        operator, lengths = points[index]
        size = operator.elements(lengths)
        if part and held + size > ELEMENTS:
            yield part
            part, held = [], 0
        part.append(int(index))
        held += size
    if part:
        yield part


def _measured(points: Sequence[Point], setting: Setting, like: onnx.ModelProto) -> Array:
    graph = Micrograph()
    try:
        for number, (operator, lengths) in enumerate(points):
            operator.place(lengths, graph, f"p{number}")
        times = profiled(load(graph.proto(like), check=False), graph.feeds(), setting)
    except (OnnxPruneError, ValueError, KeyError, IndexError, TypeError):
        if len(points) == 1:
            return np.array([np.nan])
        half = len(points) // 2  # whichever it is that does not run, the others do
        return np.concatenate([_measured(part, setting, like) for part in (points[:half], points[half:])])
    seconds = np.zeros(len(points))
    for name, value in times.items():
        found = _MARK.match(name)
        if found:
            seconds[int(found[1])] += value
    return np.where(seconds > 0, seconds, np.nan)


def profiled(
    model: Model, feeds: Mapping[str, np.ndarray], setting: Setting, *, optimised_to: str = ""
) -> dict[str, float]:
    """Name of every node that the runtime has made of a model -> seconds in a run; new ones have none.

    Args:
        model: the model.
        feeds: its inputs.
        setting: what it runs on.
        optimised_to: file for the graph that the runtime has made.
    """
    with (
        TemporaryDirectory(prefix="onnxprune-") as folder,
        Deployed(model, setting, profile=str(Path(folder) / "profile"), optimised_to=optimised_to) as session,
    ):
        start, runs = time.perf_counter(), 0
        most = max(MOST, NODES // max(1, len(model.proto.graph.node)))
        while runs < FEWEST + WARM or (runs < most and time.perf_counter() - start < SECONDS):
            session.run(feeds)
            runs += 1
        events = json.loads(session.finish_profile().read_text(encoding="utf-8"))
    found: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            found.setdefault(event["name"].removesuffix(_KERNEL), []).append(event["dur"])
    return {name: _typical(durations, runs) for name, durations in found.items()}


def _typical(durations: Sequence[float], runs: int) -> float:
    """Seconds in a run: the mean of the faster half; others on the machine only ever make it slower."""
    each = max(1, len(durations) // runs)  # a node in a loop runs several times
    by_run = np.array(durations[: each * runs], float).reshape(-1, each).sum(axis=1)[WARM:]
    return float(np.sort(by_run)[: max(1, len(by_run) // 2)].mean()) * 1e-6 + each * TRUNCATED
