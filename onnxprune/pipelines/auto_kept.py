"""Trials of a search in a folder, where a search that was ended goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnxprune import __version__
from onnxprune.calibration import digest
from onnxprune.model import save
from onnxprune.pipelines.auto_goal import TIE
from onnxprune.pipelines.auto_rungs import Halving, Perform
from onnxprune.pipelines.auto_trials import STOPPED, AutoContext, AutoTrial, Bid
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.progress import Progress, WorkPart
from onnxprune.runtime import Journal, key_of
from onnxprune.runtime import workers as jobs

# The file of results in a folder of trials.
JOURNAL = "journal.jsonl"
# Part of every key of a trial that is kept: raise it when the same trial would be another.
TRIAL = 2


class KeptTrials:
    """Trials and their models in a folder, as soon as they are finished, by what they depend on.

    Args:
        folder: where they lie.
        context: what all of them have in common.

    Attributes:
        resumed: trials that were found.
    """

    def __init__(self, folder: Path, context: AutoContext) -> None:
        self.resumed = 0
        self._folder, self._about = folder, _about(context)
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder / JOURNAL)

    def path(self, trial: AutoTrial) -> Path:
        """The file of a model."""
        return model_file(self._folder, trial)

    def performing(self, crew: jobs.Crew, search: Halving, progress: Progress) -> Perform:
        """What does bids: those that were done before are found again."""

        def perform(bids: Sequence[Bid]) -> Iterator[tuple[int, AutoTrial]]:
            keys = [key_of(**self._about, bid=asdict(bid)) for bid in bids]
            todo = list[int]()
            for index, key in enumerate(keys):
                if (trial := self._found(key)) is not None:
                    self.resumed += 1
                    yield index, trial
                else:
                    todo.append(index)
            deadline = time.time() + search.time.left
            for place, (trial, model) in crew([(bids[i], deadline) for i in todo]):
                kept = self._put(keys[todo[place]], trial, model)
                yield todo[place], kept  # before it is told, so that nothing is lost by an interrupt
                progress(_told(kept, search))

        return perform

    def _found(self, key: str) -> AutoTrial | None:
        found = self._journal.get(key)
        if found is None:
            return None
        trial = AutoTrial.from_json(found)
        return trial if trial.problem or self.path(trial).exists() else None

    def _put(self, key: str, trial: AutoTrial, model: PicklableModel | None) -> AutoTrial:
        trial = replace(trial, key=key)
        if model is not None:
            save(model.model, self.path(trial), force=True)
        if trial.problem != STOPPED:
            self._journal.put(key, trial.as_json(), {"recipe": trial.recipe})
        return trial


def model_file(folder: Path, trial: AutoTrial) -> Path:
    """Name the file of a trial's model.

    Args:
        folder: of trials.
        trial: one with a model.
    """
    return folder / f"0-{trial.key}.onnx"


def _about(context: AutoContext) -> dict[str, Any]:
    """What all trials depend on, beside their bids."""
    wanted = context.wanted
    return {
        "model": context.original.model.digest,
        "data": [digest(part) for part in (context.fitting, context.judging) if part],
        "judged": [wanted.labels, list(wanted.metrics), wanted.output],
        "evaluation": wanted.evaluation.digest if wanted.evaluation else "",
        "sizes": dict(context.sizes),
        "cost": context.cost,
        "setting": repr(context.place.setting),
        "version": __version__,
        "trial": TRIAL,
    }


def _told(trial: AutoTrial, search: Halving) -> str:
    """What is said of a trial: how far the time is."""
    made = trial.problem or f"{100 * search.goal.cost_of(trial):.3g} % of the {search.goal.cost}"
    known = [name for name in (search.goal.metric, TIE) if name in trial.values]
    found = "".join(f", {name} {trial.values[name]:.4g}" for name in dict.fromkeys(known))
    taken = search.time.seconds - search.time.left
    return WorkPart.of_time(taken, search.time.seconds, f": {trial.recipe}: {made}{found}")
