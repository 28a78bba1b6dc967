"""What quantising a model gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxprune.model import Model
from onnxprune.recovery import RecoveryReport
from onnxprune.runtime import Agreement
from onnxprune.sparsity import Speed

# Loss of signal to noise, in dB, that fused kernels do not have by rounding in another order.
CLEARLY = 3.0


@dataclass(frozen=True)
class TriedShare:
    """A model that was tried within a budget.

    Attributes:
        share: of the parameters that the cut left.
        narrow: how many layers have 4 bits.
        bytes: of the file.
        outputs: agreement with the original on held-out samples.
        value: the user's measure; None without one.
        floats: how many layers stay in float.
        speed: the time of a run before and after; None without a budget on it.
    """

    share: float
    narrow: int
    bytes: int
    outputs: Agreement
    value: float | None = None
    floats: int = 0
    speed: Speed | None = None


@dataclass(frozen=True)
class Quantized:
    """Everything that quantising gave.

    Attributes:
        model: the quantised model.
        form: how it is written.
        layers: names of the layers that multiply whole numbers.
        floats: names of the layers that stay in float -> why.
        sizes: bytes of the file before and after.
        fit: what was fitted, layer by layer; None where nothing was.
        nearest: agreement with the float model on held-out samples if every number is the nearest; None without data.
        judged: the same of `model`.
        deployed: the same by the kernels that this machine has for whole numbers, which may saturate.
        values: the user's measure of the float model and of `model`; None without one.
        speed: the time of a run before and after; None if it was not measured.
        narrow: names of the layers that got 4 bits within a budget.
        share: of the parameters that is left within a budget.
        tried: what was tried within a budget: the narrowest first, or with one on time, that of most whole numbers.
        unfolded: how many BatchNormalizations are not folded into the layer in front of them.
        seconds: wall time by stage.
    """

    model: Model
    form: str
    layers: tuple[str, ...]
    floats: Mapping[str, str]
    sizes: tuple[int, int]
    fit: RecoveryReport | None = None
    nearest: Agreement | None = None
    judged: Agreement | None = None
    deployed: Agreement | None = None
    values: tuple[float, float] | None = None
    speed: Speed | None = None
    narrow: tuple[str, ...] = ()
    share: float = 1.0
    tried: tuple[TriedShare, ...] = ()
    unfolded: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def saturates(self) -> bool:
        """Whether the kernels of this machine give outputs that are clearly worse than what the model says."""
        known = self.judged is not None and self.deployed is not None and self.judged.is_known
        return known and self.deployed.sqnr < self.judged.sqnr - CLEARLY  # type: ignore[union-attr]
