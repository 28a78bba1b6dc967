"""Quantise any source of a model, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.quantized import Quantized
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import quality_constraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.pipelines.widths_and_bits import quantize_within
from onnxprune.progress import Progress, shown
from onnxprune.runtime.bench import Place
from onnxprune.shown import Shown


@dataclass(frozen=True, repr=False)
class QuantizeResult(Shown):
    """What `quantize` returns.

    Attributes:
        model: the quantised model, of the kind that was given (a ModelProto for a path or bytes).
        report: which layers are quantised, what was fitted, how far the outputs agree, sizes and times.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.quantize("models/digits.onnx", data="models/digits_calibration.npz")
        >>> result.report.form, result.report.judged.sqnr > 25
        ('qdq', True)
    """

    model: Any
    report: Quantized


def quantize(
    source: Any,
    *,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    data: Any = None,
    samples: int = 256,
    place: Place | None = None,
    min_sqnr: float | None = None,
    max_drop: str | float | None = None,
    evaluate: Any = None,
    progress: Progress | bool = False,
    **options: Any,
) -> QuantizeResult:
    """Store the weights of layers, and compute, in whole numbers.

    Args:
        source: a float model: a path, bytes, a ModelProto, or what else `model.load` takes.
        sizes: numbers for symbolic dims.
        shapes: of inputs, as for `prune`.
        data: unlabelled calibration inputs (see `calibration.read`): the ranges of activations, and what the numbers of
            weights are chosen by.
        samples: how many of them to use.
        place: where the models are timed; they are not where None.
        min_sqnr: the least signal to noise of the outputs on held-out samples, in dB; layers that lose most stay in
            float until it is reached.
        max_drop: the most that the value of `evaluate` may drop, as "1%" or a number, in the same way.
        evaluate: the user's own measure, higher is better: see `user_metric.Evaluation`.
        progress: True shows a bar with the time that is left; a function is told every stage.
        options: the other fields of `QuantizeOptions`: form, weights, activations, per_channel, bits, block_size,
            symmetric, fit, keep, narrow, size, macs, latency.

    Returns:
        The quantised model and the report.

    Raises:
        UsageError: an option is out of range, or needs inputs that are missing.
        ModelError: the model is invalid.
        GoalMissed: no layer can be quantised, or the model is not good enough.

    Example:
        >>> import onnxprune
        >>> report = onnxprune.quantize("models/digits.onnx").report
        >>> report.form, report.sizes[1] < report.sizes[0] / 2
        ('dynamic', True)
    """
    constraint = quality_constraint(max_drop, min_sqnr)
    evaluation = None if evaluate is None else Evaluation(evaluate)
    chosen = QuantizeOptions(constraint=constraint, evaluation=evaluation, **options)
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, sizes or {})
    inputs = RunInputs(data, samples, dict(sizes or {}))
    with shown(progress) as told:
        done = quantize_within(model, chosen, inputs, place=place, progress=told)
    return QuantizeResult(same_kind(done.model, source), done)
