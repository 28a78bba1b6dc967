"""How far the outputs of a model agree with those of the original, without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxprune.model import Model
from onnxprune.rewriting import io_changes
from onnxprune.rewriting.removal import Cut
from onnxprune.runtime import Session
from onnxprune.runtime.agreement import Agreement, Tally
from onnxprune.typing import Array


def agreement(cut: Cut, other: Model, runs: Sequence[Mapping[str, Array]]) -> Agreement:
    """Compare the original with what `cut` makes of it on `runs`, inputs for the original.

    Raises:
        RunError: the runtime fails.
    """
    tally = Tally()
    with Session(cut.groups.model) as one, Session(other) as two:
        for feeds in runs:
            wanted = io_changes.outputs(cut, one.outputs, one.run(feeds))
            tally.add(wanted, two.run(io_changes.feeds(cut, feeds), one.outputs))
    return tally.agreement()
