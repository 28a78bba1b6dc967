"""Compress any source of a model, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.pipelines.compress import Compressed, compressed
from onnxprune.pipelines.prune import check_proven
from onnxprune.pipelines.sparsify import RunInputs


@dataclass(frozen=True)
class CompressResult:
    """What `compress` returns.

    Attributes:
        model: the smaller model, of the kind that was given (a ModelProto for a path or bytes).
        report: what was done, costs before and after, and the proof.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.compress("models/digits.onnx")
        >>> result.report.nodes, result.report.verdict.ok  # the example is tidy already
        ((15, 15), True)
    """

    model: Any
    report: Compressed


def compress(
    source: Any,
    *,
    data: Any = None,
    samples: int = 256,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    verify: bool = True,
) -> CompressResult:
    """Take out of a model what its function does not need: the result equals the model itself.

    Args:
        source: path, bytes, ModelProto or graphsurgeon Graph.
        data: inputs on which the result must equal the original, besides random ones (see `calibration.read`).
        samples: how many of them to use.
        sizes: numbers for symbolic dims.
        shapes: of inputs, as for `prune`.
        verify: prove the result.

    Returns:
        The smaller model, and the report.

    Raises:
        UsageError: the data do not fit the model.
        ModelError: the model is invalid.
        GoalMissed: the result is not proven.

    Example:
        >>> import onnx, onnxprune
        >>> model = onnx.load("models/digits.onnx")
        >>> model.graph.node.extend([onnx.helper.make_node("Relu", ["logits"], ["nobody_reads_it"])])
        >>> onnxprune.compress(model).report.nodes
        (16, 15)
    """
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, dict(sizes or {}))
    done = compressed(model, RunInputs(data, samples, dict(sizes or {})), verify=verify)
    check_proven(done.groups, done.verdict)
    return CompressResult(same_kind(done.model, source), done)
