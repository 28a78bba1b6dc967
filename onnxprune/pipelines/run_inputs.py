"""What a verb runs a model on: calibration inputs, how many of them, and numbers for symbolic dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune import calibration
from onnxprune.calibration import BATCH, InputSpec, LabelSource, Run
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.typing import Runs

if TYPE_CHECKING:
    from onnxprune.recovery import TrainingOptions

# Of so many runs of calibration data one judges what a search tries; the others serve to choose and to recover.
JUDGED = 4


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

    def parted(self, model: Model, *, also: Sequence[InputSpec | LabelSource] = ()) -> tuple[list[Run], list[Run]]:
        """Read the calibration runs of a search: those to choose and recover by, and those that judge.

        Args:
            model: the model that they are for.
            also: labels that are read beside the inputs.

        Returns:
            Both, in their order; none without data.

        Raises:
            UsageError: there are too few samples for both.
        """
        if self.data is None:
            return [], []
        batch = max(1, min(BATCH, self.samples // (2 * JUDGED)))
        runs = calibration.read(self.data, model, samples=self.samples, batch=batch, sizes=self.sizes, also=also)
        step = min(JUDGED, len(runs))
        if step < 3:
            raise UsageError("calibration data: too few samples: some repair a model, and others must judge it")
        judging = runs[step - 1 :: step]
        return [run for index, run in enumerate(runs) if index % step != step - 1], judging
