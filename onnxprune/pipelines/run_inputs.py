"""What a verb runs a model on: calibration inputs, how many of them, and numbers for symbolic dims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune import calibration
from onnxprune.model import Model
from onnxprune.typing import Runs

if TYPE_CHECKING:
    from onnxprune.recovery import TrainingOptions


@dataclass(frozen=True)
class RunInputs:
    """What the model is run on.

    Attributes:
        data: calibration inputs (see `calibration.read`); None for none.
        samples: how many of them to use.
        sizes: numbers for symbolic dims.
        train: gradient steps on them, towards the original's outputs; none if None.
    """

    data: Any = None
    samples: int = 256
    sizes: Mapping[str, int] = field(default_factory=dict)
    train: TrainingOptions | None = None

    def read(self, model: Model, *, batch: int | None = None) -> Runs:
        """Read the calibration runs.

        Args:
            model: the model that they are for.
            batch: samples of a run, where the model leaves the batch open; see `calibration.read` for None.

        Returns:
            A run per batch; none without data.
        """
        if self.data is None:
            return []
        return calibration.read(self.data, model, samples=self.samples, batch=batch, sizes=self.sizes)
