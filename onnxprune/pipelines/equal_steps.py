"""Steps of a plan that must change no output, each for itself: as many of them as that is proven of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from onnxprune.model import Model
from onnxprune.proof import Trials, equals
from onnxprune.tracing import Groups

_Step = TypeVar("_Step")


def largest_equal(
    groups: Groups, steps: Sequence[_Step], carry_out: Callable[[Groups, Sequence[_Step]], Model], trials: Trials
) -> tuple[Model, tuple[_Step, ...]]:
    """Carry out steps that change no output, without those that the proof does not let pass.

    Args:
        groups: the traced model.
        steps: the steps.
        carry_out: makes the model with some of them.
        trials: what the models are run on to be compared.

    Returns:
        The model, whose outputs equal those of the original, and the steps that were carried out.
    """

    def is_proven(some: Sequence[_Step]) -> bool:
        return equals(groups, carry_out(groups, some), trials).ok

    left = tuple(steps)
    if left and not is_proven(left):
        left = tuple(step for step in left if is_proven([step]))
        left = left if left and is_proven(left) else ()
    return (carry_out(groups, left), left) if left else (groups.model, ())
