"""Shrink any source of a model, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.pipelines.prune import check_proven
from onnxprune.pipelines.shrink import ShrinkOptions, Shrunk, shrink_model
from onnxprune.progress import Progress, shown
from onnxprune.shown import Shown


@dataclass(frozen=True, repr=False)
class ShrinkResult(Shown):
    """What `shrink` returns.

    Attributes:
        model: the smaller model, of the kind that was given (a ModelProto for a path or bytes).
        report: what went and why, what stays and why, costs before and after, and the proof.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.shrink("models/digits.onnx")
        >>> result.report.units, result.report.verdict.ok
        (0, True)
    """

    model: Any
    report: Shrunk


def shrink(
    source: Any,
    tolerance: float = 0.0,
    *,
    input_range: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
    data: Any = None,
    samples: int = 256,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    verify: bool = True,
    progress: Progress | bool = False,
) -> ShrinkResult:
    """Remove what is dead, without loss: the result equals the model itself.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        tolerance: weights of at most this size count as zero, and outputs may differ by this share of their largest.
        input_range: the least and the largest number that the float inputs, or those named, are ever given: units
            that are dead inside of it go too.
        data: inputs on which the result must equal the original, besides random ones (see `calibration.read`).
        samples: how many of them to use.
        sizes: numbers for symbolic dims.
        shapes: of inputs, as for `prune`.
        verify: prove the result.
        progress: True shows a bar with the time that is left; a function is told every stage.

    Returns:
        The smaller model, and the report: what went and why, what stays and why, and the proof.

    Raises:
        UsageError: the tolerance or a range is none, or the data leave the range.
        ModelError: the model is invalid.
        GoalMissed: the result is not proven.

    Example:
        >>> import onnx, onnxprune
        >>> model = onnx.load("models/digits.onnx")
        >>> for tensor in model.graph.initializer:  # mask the first eight neurons of a layer, as frameworks do
        ...     if tensor.name == "fc.weight":
        ...         masked = onnx.numpy_helper.to_array(tensor).copy()
        ...         masked[:8] = 0
        ...         tensor.CopyFrom(onnx.numpy_helper.from_array(masked, tensor.name))
        >>> onnxprune.shrink(model).report.units
        8
    """
    ranges = dict(input_range) if isinstance(input_range, Mapping) else {} if input_range is None else {"": input_range}
    options = ShrinkOptions(tolerance=tolerance, ranges=ranges, sizes=sizes or {}, verify=verify)
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, options.sizes)
    with shown(progress) as told:
        shrunk = shrink_model(model, options, data=data, samples=samples, progress=told)
    check_proven(shrunk.groups, shrunk.verdict)
    return ShrinkResult(same_kind(shrunk.model, source), shrunk)
