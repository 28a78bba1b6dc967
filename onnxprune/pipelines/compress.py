"""Take out of a model what its function does not need: the outputs stay what they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnxprune.cost import Cost, counts
from onnxprune.model import Model, file_size
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.shrink import tidied
from onnxprune.progress import Progress
from onnxprune.proof import Trials, Verdict, equals
from onnxprune.rewriting.fold import FoldedNode, folded
from onnxprune.rewriting.simplified import (
    count_nodes,
    simplified,
    with_shared_weights,
    without_identities,
    without_unread_outputs,
)
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import Speed, measured_speed
from onnxprune.tracing import Groups, trace

logger = logging.getLogger(__name__)

FOLDED = "constants and products folded"


@dataclass(frozen=True)
class ExactStage:
    """One way to make a model smaller without a change of its function.

    Attributes:
        name: what it does, for people.
        nodes: of the model before and after.
        sizes: bytes of the file before and after.
        left: why its result was not taken; empty where it was.
    """

    name: str
    nodes: tuple[int, int]
    sizes: tuple[int, int]
    left: str = ""


@dataclass(frozen=True)
class Compressed:
    """Everything that compressing a model gave.

    Attributes:
        model: the smaller model.
        groups: the traced original.
        before: cost of the original.
        after: cost of the smaller model.
        nodes: of both.
        sizes: bytes of both files.
        stages: what was done without a change of the function.
        folds: the nodes that went into contractions.
        verdict: the proof against the original; None if it was not asked for.
        speed: the time of a run before and after; None if it was not measured.
        seconds: wall time by stage.
    """

    model: Model
    groups: Groups
    before: Cost
    after: Cost
    nodes: tuple[int, int]
    sizes: tuple[int, int]
    stages: tuple[ExactStage, ...]
    folds: tuple[FoldedNode, ...]
    verdict: Verdict | None
    speed: Speed | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the file is another."""
        return self.sizes[0] != self.sizes[1]


def compressed(
    model: Model,
    inputs: RunInputs | None = None,
    *,
    verify: bool = True,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Compressed:
    """Take out of a model what its function does not need.

    Args:
        model: the model.
        inputs: inputs on which the result must equal the original, besides random ones.
        verify: prove the result, and every stage on the way; one that fails is left out.
        place: where the models are timed; they are not where None.
        progress: is told about every stage.

    Returns:
        The smaller model, what was done, and the proof.
    """
    inputs, clock = inputs or RunInputs(), Clock(progress)
    runs = inputs.read(model)
    with clock("tracing"):
        groups = trace(model, sizes=inputs.sizes)
    work = _Exact(model, groups, inputs.sizes, clock, verify=verify)
    small = work.run()
    verdict = None
    if verify:
        with clock("proving"):
            verdict = equals(groups, small, Trials(samples=runs, sizes=inputs.sizes, as_written=True))
    with clock("counting"):
        before, after = (counts.of(each, inputs.sizes) for each in (model, small))
    with clock("timing"):
        speed = measured_speed(model, small, place) if place is not None else None
    return Compressed(
        model=small,
        groups=groups,
        before=before,
        after=after,
        nodes=(count_nodes(model), count_nodes(small)),
        sizes=(file_size(model), file_size(small)),
        stages=tuple(work.stages),
        folds=tuple(work.folds),
        verdict=verdict,
        speed=speed,
        seconds=clock.seconds,
    )


@dataclass
class _Exact:
    """A model that gets smaller from stage to stage.

    Attributes:
        source: the original.
        groups: the traced original.
        sizes: numbers for symbolic dims.
        clock: times the stages.
        verify: prove every stage.
        stages: what was tried.
        folds: the nodes that went into contractions.
    """

    source: Model
    groups: Groups
    sizes: Mapping[str, int]
    clock: Clock
    verify: bool
    stages: list[ExactStage] = field(default_factory=list)
    folds: list[FoldedNode] = field(default_factory=list)

    def run(self) -> Model:
        """All stages, one after the other."""
        model = self.source
        for name, stage in self._table().items():
            with self.clock(name):
                made = stage(model)
            if made is not model:
                model = self._taken(name, model, made)
        return model

    def _table(self) -> Mapping[str, Callable[[Model], Model]]:
        """What is done, by its name."""
        return {
            "dead nodes removed": tidied,
            "identities removed": without_identities,
            "no-ops removed and constants computed": simplified,
            FOLDED: self._folded,
            "unread outputs left out": without_unread_outputs,
            "equal weights shared": with_shared_weights,
        }

    def _folded(self, model: Model) -> Model:
        made, done = folded(model, self.sizes)
        self.folds += done
        return made

    def _taken(self, name: str, model: Model, made: Model) -> Model:
        """What a stage made, if it is no larger and equals the original; else what it was given."""
        sizes, nodes = (file_size(model), file_size(made)), (count_nodes(model), count_nodes(made))
        if sizes[0] == sizes[1] and nodes[0] == nodes[1]:
            return model
        left = "it is larger" if sizes[1] > sizes[0] else self._problem(made)
        self.stages.append(ExactStage(name, nodes, sizes, left))
        if not left:
            return made
        logger.warning("%s: not done, %s", name, left)
        if name == FOLDED:
            self.folds.clear()
        return model

    def _problem(self, made: Model) -> str:
        """What the proof has against a stage; empty without any."""
        if not self.verify:
            return ""
        trials = Trials(sizes=self.sizes, seeds=1, as_written=True)
        with self.clock("proving"):
            verdict = equals(self.groups, made, trials)
        return "" if verdict.ok or not verdict.runnable else verdict.problem
