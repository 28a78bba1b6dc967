"""One group made smaller, and the effect on the outputs: a job that any worker can do.

A cut changes only the tensors that it makes smaller and what is computed from them. All others are the original's, so
a worker takes the calibration inputs through the original once, keeps what the changed part reads, and runs that part
alone for every cut of the group. A walk through all groups in their order makes this the same computation whichever
of them a worker is asked for, down to the last bit.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model, load, save
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.recovery import RecoveryOptions, recover
from onnxprune.rewriting import Plan, Removal, io_changes
from onnxprune.rewriting.plan import Step
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import (
    ActivationReader,
    AgreementAccumulator,
    RunMode,
    Session,
    SpillBuffer,
    boundary_inputs,
    run_changed,
)
from onnxprune.tracing import Group, Groups, trace
from onnxprune.typing import Array

Run = Mapping[str, Array]
MEMORY = 2 << 30


class PicklableModel:
    """A model that can be pickled, with its external data."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Callable[..., PicklableModel], tuple[Any, ...]]:
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
            save(self.model, Path(folder) / "model.onnx")
            return _arrived, ({path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())},)


def _arrived(files: Mapping[str, bytes]) -> PicklableModel:
    if len(files) == 1:
        return PicklableModel(load(next(iter(files.values())), check=False))
    folder = Path(tempfile.mkdtemp(prefix="onnxprune-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return PicklableModel(load(str(folder / "model.onnx"), check=False))


@dataclass(frozen=True)
class ProbeContext:
    """What all measurements of a model have in common.

    Attributes:
        model: the model.
        policy: keyword arguments of `grouping.trace`.
        names: all groups that may be asked for, in graph order.
        runs: calibration inputs.
        evaluation: the user's measure, instead of the agreement of outputs.
        recovery: how to re-fit before every measurement; None leaves the cut as it is.
        whole: run the whole smaller model for every measurement.
        threads: of the runtime.
        memory: bytes of activations that a worker keeps in memory; what is more lies in temporary files.
    """

    model: PicklableModel
    policy: Mapping[str, Any]
    names: Sequence[str]
    runs: Sequence[Run]
    evaluation: Evaluation | None = None
    recovery: RecoveryOptions | None = None
    whole: bool = False
    threads: int = 1
    memory: int = MEMORY


def prepare_probe(setting: ProbeContext) -> Callable[[Step | None], dict[str, float]]:
    """What measures one cut: the step of a plan -> values by metric; None is the original.

    The values are "error", "sqnr", "cosine", and for class scores "kl" and "top1" (see `Agreement`), or "value" where
    there is an evaluation.
    """
    return _Probe(setting).measure


class _Probe:
    def __init__(self, setting: ProbeContext) -> None:
        self.setting = setting
        self.groups = trace(setting.model.model, **setting.policy)

    def measure(self, step: Step | None) -> dict[str, float]:
        evaluation = self.setting.evaluation
        if step is None:
            return {"value": evaluation.of(self.groups.model)} if evaluation else {}
        removal = Removal(self.groups, Plan((step,)).removed(self.groups))
        small = rewrite(self.groups, removal.removed_classes)
        if self.setting.recovery is not None:
            small, _ = recover(removal, small, self.setting.runs, self.setting.recovery)
        if evaluation:
            return {"value": evaluation.of(small)}
        whole = self.setting.whole or self.setting.recovery is not None
        held = None if whole else self._walked.at(step.group)
        tally = self._whole(removal, small) if held is None else self._changed(removal, small, held)
        found = tally.agreement()
        if not found.is_known:
            raise UsageError("no output of the model is a tensor of floats to compare", hint="give your own --eval")
        values = {name: getattr(found, name) for name in ("error", "sqnr", "cosine", "kl", "top1")}
        return {name: float(value) for name, value in values.items() if value is not None}

    @cached_property
    def _outputs(self) -> tuple[list[str], list[list[Any]]]:
        """The original's outputs: their names, and the values of every run."""
        store = SpillBuffer(self.setting.memory // 4)
        with Session(self.groups.model, threads=self.setting.threads) as session:
            kept = [
                [store.keep(v) if isinstance(v, np.ndarray) else v for v in session.run(feeds)]
                for feeds in self.setting.runs
            ]
            self._store = store
            return session.outputs, kept

    @cached_property
    def _walked(self) -> _Walked:
        return _Walked(self.groups, self.setting)

    def _whole(self, removal: Removal, small: Model) -> AgreementAccumulator:
        names, wanted = self._outputs
        tally = AgreementAccumulator()
        with Session(small, threads=self.setting.threads) as session:
            for feeds, values in zip(self.setting.runs, wanted, strict=True):
                found = session.run(io_changes.feeds(removal, feeds), names)
                tally.add(io_changes.outputs(removal, names, values), found)
        return tally

    def _changed(self, removal: Removal, small: Model, held: Sequence[Run]) -> AgreementAccumulator:
        """Run only what differs from the original."""
        names, wanted = self._outputs
        known = [{**run, **at} for run, at in zip(self.setting.runs, held, strict=True)]
        found = run_changed(small, known, names, wanted, removal.behind, mode=RunMode(self.setting.threads))
        tally = AgreementAccumulator()
        for old, new in zip(wanted, found, strict=True):
            tally.add(old, new)
        return tally


def frontier(groups: Groups, group: Group) -> list[str] | None:
    """What the part of the graph that a cut changes reads of the rest.

    None where a cut changes inputs or outputs of the model, or something that is read is no array that can be held.
    """
    removed = np.zeros(groups.classes.count, bool)
    removed[group.classes] = True
    removal = Removal(groups, removed)
    if io_changes.changes(removal) or io_changes.row_maps(removal):
        return None
    return boundary_inputs(groups.model, removal.behind, groups.static.dtypes)


class _Walked:
    """The original's activations in front of one group after the other."""

    def __init__(self, groups: Groups, setting: ProbeContext) -> None:
        by_name = {g.name: g for g in groups.groups}
        self._model, self._setting = groups.model, setting
        self._fronts = {name: frontier(groups, by_name[name]) for name in setting.names}
        self._order = {name: place for place, name in enumerate(setting.names)}
        self._next = 0
        self._walk: ActivationReader | None = None
        self._store = SpillBuffer(setting.memory // 2)
        self._held: list[Run] = []
        self._at = ""

    def at(self, name: str) -> Sequence[Run] | None:
        """What the part behind the group `name` reads, run by run; None where the whole model must run."""
        if self._fronts[name] is None:
            return None
        if name != self._at:
            self._free()
            place = self._order[name]
            if self._walk is None or place < self._next:
                self._restart()
            for passed in self._setting.names[self._next : place + 1]:
                self._take(passed, keep=passed == name)
            self._next, self._at = place + 1, name
        return self._held

    def _restart(self) -> None:
        if self._walk is not None:
            self._walk.__exit__(None, None, None)
        wanted = [tensor for name in self._setting.names for tensor in self._fronts[name] or ()]
        memory, threads = self._setting.memory // 4, self._setting.threads
        self._walk, self._next = (
            ActivationReader(self._model, self._setting.runs, wanted, memory=memory, threads=threads),
            0,
        )

    def _take(self, name: str, *, keep: bool) -> None:
        assert self._walk is not None
        for values in self._walk.read(self._fronts[name] or []):
            if keep:
                self._held.append({tensor: self._store.keep(np.asarray(value)) for tensor, value in values.items()})

    def _free(self) -> None:
        for run in self._held:
            for value in run.values():
                self._store.release(value)
        self._held, self._at = [], ""
