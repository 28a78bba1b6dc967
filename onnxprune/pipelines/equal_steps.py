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

    def proven(some: Sequence[_Step]) -> Model | None:
        made = carry_out(groups, some) if some else None
        return made if made is not None and equals(groups, made, trials).ok else None

    left = tuple(steps)
    made = proven(left)
    if left and made is None:
        left = tuple(step for step in left if proven([step]) is not None)
        made = proven(left)
    return (groups.model, ()) if made is None else (made, left)
