"""Training that follows pruning."""

from __future__ import annotations

from onnxprune.allocation import Options
from onnxprune.calibration import read
from onnxprune.model import load
from onnxprune.pipelines import prune
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.prune_training import resumable, trained_after
from onnxprune.recovery import RecoveryOptions, Saving, TrainingOptions, judge
from onnxprune.rewriting import Removal
from tests.pipelines.test_prune_drop import DATA, DIGITS


def test_a_checkpoint_belongs_to_one_way_to_prune(tmp_path) -> None:
    model = load(DIGITS)
    runs = read(DATA, model, samples=32)
    assert resumable(RecoveryOptions(), model, Options(ratio=0.5), runs, None) == RecoveryOptions()
    recovery = RecoveryOptions(train=TrainingOptions(2, saving=Saving(tmp_path / "c")))
    keys = [resumable(recovery, model, Options(ratio=ratio), runs, None).train for ratio in (0.5, 0.5, 0.4)]
    assert keys[0] == keys[1] != keys[2] and keys[0] != recovery.train


def test_what_is_trained_is_nearer_to_the_original() -> None:
    model, clock = load(DIGITS), Clock()
    runs = read(DATA, model, samples=64)
    outcome = prune.run(model, Options(ratio=0.5), data=DATA, samples=64)
    removal = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    assert trained_after(removal, outcome.model, runs, RecoveryOptions(), clock) == {}
    found = trained_after(removal, outcome.model, runs, RecoveryOptions(train=TrainingOptions(30)), clock)
    assert found["training"] is not None and "training" in found["seconds"]
    assert outcome.judged is not None and judge(removal, found["model"], runs).distance <= outcome.judged.distance
    mine = trained_after(removal, outcome.model, runs, RecoveryOptions(tune=lambda small: small), clock)
    assert mine["model"] is outcome.model and mine["training"] is None
