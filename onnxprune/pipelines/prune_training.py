"""Training that follows pruning: towards the outputs of the original, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnxprune import __version__, calibration
from onnxprune.allocation import Options
from onnxprune.model import Model
from onnxprune.pipelines.clock import Clock
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import Removal
from onnxprune.runtime import key_of


def resumable(
    recovery: RecoveryOptions, model: Model, options: Options, runs: Sequence[Any], sizes: Mapping[str, int] | None
) -> RecoveryOptions:
    """Say what a checkpoint of a training belongs to.

    Args:
        recovery: how to recover, and to train.
        model: what is trained, or what it is made of.
        options: what is pruned.
        runs: calibration inputs.
        sizes: numbers for symbolic dims.

    Returns:
        The recovery; as it is where no checkpoint is written.
    """
    if recovery.train is None or recovery.train.saving is None:
        return recovery
    given = {
        "options": options.as_json(),
        "recovery": [recovery.method, *recovery.dampings],
        "sizes": dict(sizes or {}),
    }
    belongs_to = key_of(model=model.digest, data=calibration.digest(runs), version=__version__, **given)
    return replace(recovery, train=recovery.train.belonging_to(belongs_to))


def trained_after(
    removal: Removal, small: Model, runs: Sequence[Any], recovery: RecoveryOptions, clock: Clock
) -> dict[str, Any]:
    """Train a smaller model, if it is to be.

    Args:
        removal: what was removed, with the traced original, whose outputs are learned.
        small: the smaller model.
        runs: inputs of the original.
        recovery: how to train.
        clock: times it.

    Returns:
        What is other in the outcome then, by the names of its fields; nothing without training.
    """
    if recovery.train is None and recovery.tune is None:
        return {}
    with clock("training"):
        from onnxprune.pipelines.train import train_after

        model, training = train_after(removal, small, runs, recovery, progress=clock.progress)
    tuned = getattr(recovery.tune, "name", "") if recovery.tune is not None else ""
    return {"model": model, "training": training, "tuned": tuned, "seconds": clock.seconds}
