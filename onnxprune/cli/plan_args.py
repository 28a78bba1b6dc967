"""What `plan` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.cli.options.data import Data
from onnxprune.cli.options.execution import Where
from onnxprune.cli.options.sizes import Sizes

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.model import Model


@dataclass(frozen=True)
class PlanArgs:
    """What `plan` is asked for."""

    model: str
    output: str
    options: Options
    sizes: Sizes
    place: Where
    data: Data
    force: bool

    def load(self) -> Model:
        """Load the model."""
        return self.sizes.load(self.model)
