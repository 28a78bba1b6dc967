"""What setting elements of weights to zero gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.model import Model
from onnxprune.pipelines.unit_order import Ordered
from onnxprune.proof import Verdict
from onnxprune.recovery import Training
from onnxprune.rewriting import Plan
from onnxprune.runtime import Agreement
from onnxprune.sparsity import Eligible, Speed
from onnxprune.tracing import Groups


@dataclass(frozen=True)
class SparseWeight:
    """What became of one weight.

    Attributes:
        name: of the stored tensor.
        node: the node that reads it.
        op: its operator.
        shape: its sizes.
        zeros: elements that are zero in the end, those that were before included.
        before: elements that were zero before.
        method: how they were chosen.
        refitted: whether the elements that stay have other values.
        error: squared error of the layer's outputs relative to their squares, on the inputs that it was fitted to;
            None where these are not known.
        stored: "dense" or "sparse".
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    zeros: int
    before: int
    method: str
    refitted: bool = False
    error: float | None = None
    stored: str = "dense"

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Sparsified:
    """Everything that setting elements to zero gave.

    Attributes:
        model: the model with zeros.
        plan: which elements became zero.
        groups: the traced original.
        weights: what became of every weight, in graph order.
        left: weights of contractions that could not be changed -> why.
        verdict: the proof of the zeros, before any fit; None if it was not asked for.
        masked: agreement with the original on held-out samples with the zeros alone; None without a fit.
        judged: the same after the fit; None without data. The samples that judge take no part in this fit; where it is
            kept, zeros and fit are made once more with all samples, so that none is wasted.
        sizes: bytes of the file before and after.
        speed: the time of a run before and after; None if it was not measured.
        training: what gradient steps did; None if there were none, or they made the model no better.
        eligible: for 2:4, what TensorRT may do with every layer.
        order: the order that units were put into; None where the pattern asks for none.
        seconds: wall time by stage.
    """

    model: Model
    plan: Plan
    groups: Groups
    weights: tuple[SparseWeight, ...]
    left: Mapping[str, str]
    verdict: Verdict | None
    masked: Agreement | None = None
    judged: Agreement | None = None
    sizes: tuple[int, int] = (0, 0)
    speed: Speed | None = None
    training: Training | None = None
    eligible: Sequence[Eligible] = ()
    order: Ordered | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
