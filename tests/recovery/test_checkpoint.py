"""Checkpoints of runs, and those that are of another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune import Saving, TrainingOptions, api
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from tests.recovery.test_fine_tune import DATA, QUICK, damage, original, small
from tests.recovery.test_saving import DIGITS, prune

__all__ = ["original", "small"]  # the fixtures


def test_a_checkpoint_of_another_run_is_refused(original: Model, small: Model, tmp_path: Path) -> None:
    path, data = tmp_path / "run.checkpoint", TrainingData(DATA, teacher=original)
    there = TrainingOptions(4, saving=Saving(path), **QUICK)
    learn(small, data, there)
    there = replace(there, saving=Saving(path, resume=True))
    content = path.read_bytes()
    for model, options in ((damage(small), there), (small, replace(there, steps=5))):
        with pytest.raises(UsageError, match="checkpoint of another run"):
            learn(model, data, options)
    assert path.read_bytes() == content
    path.write_bytes(content[:200])
    with pytest.raises(UsageError, match="is no checkpoint"):
        learn(small, data, there)


@pytest.mark.parametrize("given", [{"macs": "50%"}, {"macs": "40%", "criterion": "l2"}])
def test_a_checkpoint_of_another_cut_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    saving = Saving(tmp_path / "run.checkpoint")
    prune(TrainingOptions(4, while_training="soft", saving=saving, **QUICK))
    recovery = api.RecoveryOptions(
        train=TrainingOptions(4, while_training="soft", saving=replace(saving, resume=True), **QUICK)
    )
    with pytest.raises(UsageError, match="checkpoint of another run"):
        api.run(api.load(str(DIGITS)), onnxprune.Options(**given), data=DATA, recovery=recovery)
