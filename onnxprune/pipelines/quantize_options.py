"""What a person may ask `quantize` for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.names import BLOCK_BITS, QUANTIZED_FORMS, WEIGHT_TYPES, WHOLE_TYPES
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.rewriting import LEAST_BLOCK, Blocks

AUTO = "auto"


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model is quantised.

    Attributes:
        form: one of `names.QUANTIZED_FORMS`; "auto" is "qdq" with data, else "dynamic".
        weights: type of the numbers of weights, one of `names.WEIGHT_TYPES`.
        activations: that of activations, one of `names.WHOLE_TYPES`.
        per_channel: a scale for every output of a weight, not one for all of it.
        bits: of a number, for blocks.
        block_size: inputs that share a scale, for blocks.
        symmetric: blocks have no zero points.
        fit: choose the numbers by what the layers make on data, not by the weights alone.
        keep: globs of names of nodes that stay in float.
        narrow: globs of names of nodes whose weights are of 4 bits, for quantisers around float nodes.
        size: the largest file, as "10%" of the float model's or "200KB"; widths and bits are chosen so that it holds.
        macs: the most multiply-accumulates, as "50%" or a number, for the same.
        latency: the most time of a run, measured, as "50%" of the float model's or "12ms"; widths, and which layers are
            quantised, are chosen so that it holds.
        constraint: how good the model must be; nodes that lose most stay in float until it is. None for as it comes.
        evaluation: the user's measure, for a constraint on the value of it.
    """

    form: str = AUTO
    weights: str = "int8"
    activations: str = "uint8"
    per_channel: bool = True
    bits: int = 4
    block_size: int = 32
    symmetric: bool = False
    fit: bool = True
    keep: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    size: str | float | None = None
    macs: str | float | None = None
    latency: str | float | None = None
    constraint: QualityConstraint | None = None
    evaluation: Evaluation | None = None

    def __post_init__(self) -> None:
        known: tuple[tuple[Any, tuple[Any, ...], str], ...] = (
            (self.form, (AUTO, *QUANTIZED_FORMS), "form of a quantised model"),
            (self.weights, WEIGHT_TYPES, "type of weights"),
            (self.activations, WHOLE_TYPES, "type of activations"),
            (self.bits, BLOCK_BITS, "number of bits"),
        )
        for value, values, what in known:
            if value not in values:
                raise UsageError(f"{value!r} is no {what}", hint=f"known: {', '.join(map(str, values))}")
        size = self.block_size
        if size < LEAST_BLOCK or size & (size - 1):
            raise UsageError(f"{size} is no size of a block", hint="give 16, 32, 64, 128 or another power of two")
        is_value = self.constraint is not None and self.constraint.metric == "value"
        if is_value != (self.evaluation is not None):
            raise UsageError(
                "a largest drop needs a measure" if is_value else "there is a measure and nothing that it must keep",
                hint="give both --max-drop and --eval",
            )

    @property
    def is_narrow(self) -> bool:
        """Whether two weights share a byte, in the form of quantisers around float nodes."""
        return self.weights not in WHOLE_TYPES or bool(self.narrow)

    @property
    def is_budgeted(self) -> bool:
        """Whether widths and bits are chosen so that a budget holds."""
        return any(budget is not None for budget in (self.size, self.macs, self.latency))

    @property
    def blocks(self) -> Blocks:
        """How weights are stored, for blocks."""
        return Blocks(self.bits, self.block_size, self.symmetric)

    def settled(self, *, data: bool) -> QuantizeOptions:
        """The same with a form.

        Args:
            data: whether there are inputs.

        Returns:
            Options that are complete.

        Raises:
            UsageError: the form, or the constraint, needs inputs, and there are none; or it has no such weights.
        """
        form = self.form if self.form != AUTO else "qdq" if data else "dynamic"
        if form in ("qdq", "operators") and not data:
            raise UsageError(
                f"the form {form!r} needs inputs that tell the ranges of activations",
                hint="give --data FILE, or take --form dynamic or blocks",
            )
        if form != "qdq" and self.is_narrow:
            raise UsageError(
                f"the form {form!r} has no weights of type {'int4' if self.narrow else self.weights}",
                hint="take --form qdq, or --form blocks --bits 4",
            )
        if self.is_budgeted and (form != "qdq" or self.narrow):
            raise UsageError(
                "--size, --macs and --latency choose widths and bits of quantisers around float nodes",
                hint="take --form qdq with --data FILE, and leave out --narrow",
            )
        if self.constraint is not None and self.constraint.metric != "value" and not data:
            raise UsageError("how good the outputs are is measured on inputs", hint="give --data FILE")
        return replace(self, form=form)
