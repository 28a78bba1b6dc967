"""Options of training."""

from __future__ import annotations

import pytest

from onnxprune.errors import UsageError
from onnxprune.recovery.training_options import TrainingOptions


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"optimizer": "adam"}, "no optimizer"),
        ({"schedule": "step"}, "no schedule"),
        ({"augment": ("spin",)}, "no augmentation"),
        ({"loss": "l3"}, "no loss"),
        ({"rate": -1.0}, "learning rate"),
        ({"temperature": 0.0}, "a temperature must be from 0.01 to 1000"),
        ({"average": 1.0}, "running mean"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_options_out_of_range(given: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TrainingOptions(10, **given)
