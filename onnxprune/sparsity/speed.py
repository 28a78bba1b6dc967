"""Whether zeros make a model faster: measured on the runtime that is here, and what other runtimes ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.model import Model
from onnxprune.runtime import paired_timing
from onnxprune.runtime.bench import Place, candidate, feeds_of
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.sparsity.pattern import NofM, Pattern
from onnxprune.sparsity.weights import ContractionWeight

# Seconds of timed runs of either model.
SECONDS = 0.5
# A smaller difference of times is none, however sure it is: other sessions of the same model differ by as much.
LEAST = 0.01
# What TensorRT's sparse kernels ask of a layer: https://github.com/NVIDIA/TensorRT/issues/2271, 4065 and 4694.
OPERATORS, LEAST_OUTPUTS, MULTIPLE = ("Gemm", "Conv"), 256, 4
TWO_OF_FOUR = NofM(2, 4)


@dataclass(frozen=True)
class Speed:
    """The time of a run before and after.

    Attributes:
        before: seconds of a run of the original.
        after: seconds of a run of the model with zeros.
        ratio: how they compare.
        place: where they ran.
    """

    before: float
    after: float
    ratio: TimeRatio
    place: Place

    @property
    def is_faster(self) -> bool:
        """Whether the model with zeros takes less time, beyond the noise."""
        return not self.ratio.is_noise and self.ratio.value < 1 - LEAST

    @property
    def is_slower(self) -> bool:
        """Whether the model with zeros takes more time, beyond the noise."""
        return not self.ratio.is_noise and self.ratio.value > 1 + LEAST


@dataclass(frozen=True)
class Eligible:
    """Whether TensorRT may run a layer on its sparse kernels.

    Attributes:
        name: of the weight.
        node: of the layer.
        problem: why it may not; empty where it may.
    """

    name: str
    node: str
    problem: str = ""


def measured_speed(
    original: Model, changed: Model, place: Place, *, seconds: float = SECONDS, sessions: int = paired_timing.SESSIONS
) -> Speed:
    """Time two models against each other.

    Args:
        original: the model before.
        changed: the model with zeros.
        place: where they run.
        seconds: of timed runs of either model.
        sessions: how often both are opened again.

    Returns:
        Their times.

    Raises:
        RunError: a model does not run on random inputs.
    """
    feeds = feeds_of(original, place)
    compared = paired_timing.compare_timings(
        [candidate(m, place.setting, feeds) for m in (original, changed)], seconds=seconds, sessions=sessions
    )
    return Speed(compared.median(0), compared.median(1), compared.ratio(1), place)


def eligible_layers(weights: Sequence[ContractionWeight], pattern: Pattern) -> list[Eligible]:
    """Judge every layer by what TensorRT's sparse kernels ask for.

    Args:
        weights: those with zeros.
        pattern: where their zeros lie.

    Returns:
        Every layer, if the pattern is 2:4; none else.
    """
    if pattern != TWO_OF_FOUR:
        return []
    return [Eligible(w.name, w.nodes[0], _problem(w)) for w in weights]


def _problem(weight: ContractionWeight) -> str:
    op = weight.nodes[1]
    if op not in OPERATORS:
        return f"{op} is not {' nor '.join(OPERATORS)}" + (": as a Gemm it might be" if op == "MatMul" else "")
    if not weight.is_float:
        return "it is quantised"
    if weight.groups > 1:
        return "it has groups"
    if weight.channels % MULTIPLE:
        return f"its {weight.channels} inputs are no multiple of {MULTIPLE}"
    if weight.outputs < LEAST_OUTPUTS:
        return f"it has {weight.outputs} outputs, fewer than {LEAST_OUTPUTS}"
    return ""
