"""Benchmarks of models where they run: time, memory and size, of several against the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model, inlined, load, refuse_negative_sizes, save
from onnxprune.model.flatten import flattened
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.model.shapes.symbols import candidate_sizes, dims_of, sizes_of, symbolic_dims
from onnxprune.runtime import memory as footprint
from onnxprune.runtime import paired_timing
from onnxprune.runtime.energy import Energy
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.runtime.random_inputs import random_feeds
from onnxprune.runtime.session import Deployed, Setting
from onnxprune.shown import Shown
from onnxprune.system import check_fits
from onnxprune.typing import Feeds

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Place:
    """Where times are measured.

    Attributes:
        setting: provider and threads.
        shapes: of inputs, by name; symbolic axes that they leave open get small sizes, the first of an input 1.
        sizes: numbers for symbolic axes, by their names.
        deployed: makes what is run in place of a model that is pruned, its quantised form; None for the model itself.
    """

    setting: Setting = field(default_factory=Setting)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    deployed: Callable[[Model], Model] | None = None


@dataclass(frozen=True)
class Timing:
    """What one model takes for one batch.

    Attributes:
        batch: samples of a run.
        median: seconds of a run.
        p95: seconds that 95 % of the runs stay below.
        runs: how many were timed.
        ratio: its time over that of the first model.
        energy: of a run; None until `pipelines.run_energy` adds it.
    """

    batch: int
    median: float
    p95: float
    runs: int
    ratio: TimeRatio
    energy: Energy | None = None

    @property
    def throughput(self) -> float:
        """Samples in a second."""
        return self.batch / self.median


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """What one model takes.

    Attributes:
        name: of the model.
        shapes: of its inputs, by name, at the first batch.
        size: bytes of its files.
        memory: bytes that it takes in memory at most, at the largest batch; None where the system does not tell.
        timings: one per batch.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    size: int
    memory: int | None
    timings: tuple[Timing, ...]


def bench(
    sources: Sequence[Any],
    *,
    place: Place | None = None,
    batches: Sequence[int] = (),
    seconds: float = 2.0,
    runs: int = 20,
    progress: Progress | None = None,
) -> list[Result]:
    """Time models against the first of them, interleaved; all that ONNX Runtime does to make them fast is on.

    Args:
        sources: paths, bytes, ModelProtos, or what else `model.load` takes.
        place: what they run on, and the shapes of their inputs.
        batches: sizes for the first axis of the inputs, where it is symbolic; what `place` says where empty.
        seconds: of timed runs, for every model and batch.
        runs: fewest timed runs of every model and batch.
        progress: is told about every stage.

    Raises:
        UsageError: a model cannot have these shapes, or this batch.
        RunError: a model does not run.
    """
    tell: Progress = progress or (lambda stage: None)
    where = place or Place()
    setting = where.setting
    models = [load(source) for source in sources]
    for model in models:
        refuse_negative_sizes(model)
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        paths = [_saved(model, Path(folder) / str(index)) for index, model in enumerate(models)]
        made = [[feeds_of(m, where, batch) for m in models] for batch in batches or (None,)]
        timings = []
        for feeds in made:
            tell(f"timing {len(models)} models, batch {batch_of(models[0], feeds[0])}")
            candidates = [candidate(path, setting, given) for path, given in zip(paths, feeds, strict=True)]
            least = -(-runs // paired_timing.SESSIONS)
            compared = paired_timing.compare_timings(candidates, seconds=seconds, least=least)
            timings.append([_timing(compared, i, batch_of(m, feeds[i])) for i, m in enumerate(models)])
        tell("measuring memory")
        memory = [footprint.peak(path, feeds, setting) for path, feeds in zip(paths, made[-1], strict=True)]
        return [
            Result(
                Path(model.path).name if model.path else f"model {i + 1}",
                {name: value.shape for name, value in made[0][i].items()},
                sum(f.stat().st_size for f in paths[i].parent.iterdir()),
                memory[i],
                tuple(row[i] for row in timings),
            )
            for i, model in enumerate(models)
        ]


def _saved(model: Model, folder: Path) -> Path:
    folder.mkdir()
    save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _timing(compared: paired_timing.PairedTimings, index: int, batch: int) -> Timing:
    ratio = compared.ratio(index) if index else TimeRatio(1, 1, 1)
    return Timing(batch, compared.median(index), compared.percentile(index, 95), len(compared.runs[index]), ratio)


def candidate(model: Model | Path, setting: Setting, feeds: Feeds) -> paired_timing.Candidate:
    """A model that is compared with others in time."""

    @contextmanager
    def opened() -> Iterator[Callable[[], object]]:
        with Deployed(model, setting) as session:
            yield lambda: session.run(feeds)

    return opened


def feeds_of(model: Model, place: Place, batch: int | None = None) -> dict[str, np.ndarray]:
    """Random inputs that the model runs on.

    Args:
        model: the model.
        place: where it runs, and how large its inputs are.
        batch: size of symbolic first axes; what `place` says, else 1, where None.

    Raises:
        UsageError: the model cannot have these shapes, or this batch.
        RunError: it does not run.
    """
    graph = model.proto.graph
    given = {**place.sizes, **sizes_of(graph, place.shapes)}
    symbols = symbolic_dims(graph)
    firsts = [s for s, use in symbols.items() if use.axis == 0]
    if batch is not None and not firsts and batch != (own := _own_batch(model)):
        raise UsageError(f"{model.name} is made for batches of {own} only", hint="leave --batch out")
    given |= {s: batch or given.get(s, 1) for s in firsts}
    return feeds_at(model, place.setting, given)


def feeds_at(model: Model, setting: Setting, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Random inputs that the model runs on, given numbers for its symbolic axes; others get small ones.

    Raises:
        UsageError: the memory does not suffice.
        RunError: it does not run.
    """
    symbols, flat = symbolic_dims(model.proto.graph), flattened(inlined(model))
    failure: RunError | None = None
    with Deployed(model, setting) as session:
        for numbers, _ in candidate_sizes(symbols, sizes):
            static = infer(flat, {**numbers, **sizes})
            check_fits(f"a run of {model.name}", _least_memory(flat, static))
            feeds = random_feeds(flat, static, np.random.default_rng(0))
            try:
                session.run(feeds)
                return feeds
            except RunError as error:
                failure = failure or error
    assert failure is not None
    raise RunError(f"{model.name}: {failure.message}", hint="say the shapes of its inputs: --shape input=1x3x224x224")


def _least_memory(model: Model, static: StaticInfo) -> int:
    """Bytes that a run takes at least: the inputs, as they are drawn, and the largest tensor."""
    drawn = sum(8 * math.prod(static.shapes.get(value.name, ())) for value in model.proto.graph.input)
    largest = max((math.prod(shape) for shape in static.shapes.values()), default=0)
    return drawn + largest


def _own_batch(model: Model) -> int:
    weights = {t.name for t in model.proto.graph.initializer}
    dims = [
        dims_of(v) for v in model.proto.graph.input if v.name not in weights and v.type.tensor_type.HasField("shape")
    ]
    return next((int(d[0]) for d in dims if d and isinstance(d[0], int)), 1)


def batch_of(model: Model, feeds: Feeds) -> int:
    """Samples of a run: the length of the first symbolic first axis, else of the first axis."""
    use = next((use for use in symbolic_dims(model.proto.graph).values() if use.axis == 0), None)
    return feeds[use.tensor].shape[0] if use else _own_batch(model)
