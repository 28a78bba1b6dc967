"""Set elements of any source of a model to zero, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from onnxprune.keywords import ZeroKeywords, accepts_synonyms, check_keywords
from onnxprune.model import load, same_kind
from onnxprune.pipelines.prune import check_proven
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsified import Sparsified
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.progress import Progress, shown
from onnxprune.recovery import TrainingOptions
from onnxprune.rewriting import Plan
from onnxprune.shown import Shown
from onnxprune.sparsity import SparsifyOptions


@dataclass(frozen=True, repr=False)
class SparsifyResult(Shown):
    """What `sparsify` returns.

    Attributes:
        model: the model with zeros, of the kind that was given (a ModelProto for a path or bytes).
        plan: which elements became zero.
        report: what became of every weight, and the proof.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.sparsify("models/digits.onnx", pattern="2:4")
        >>> result.report.verdict.ok
        True
        >>> [(weight.name, weight.zeros / weight.elements) for weight in result.report.weights][1]
        ('conv_1.weight', 0.5)
    """

    model: Any
    plan: Plan
    report: Sparsified


@accepts_synonyms(ZeroKeywords)
def sparsify(
    source: Any,
    sparsity: float | None = None,
    *,
    verify: bool = True,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    data: Any = None,
    samples: int = 256,
    train: TrainingOptions | None = None,
    progress: Progress | bool = False,
    **options: Unpack[ZeroKeywords],
) -> SparsifyResult:
    """Set elements of the weights of contractions to zero, and prove the result.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        sparsity: share of every weight's elements; half if neither it nor a pattern like "2:4" says how many.
        verify: prove that the zeros, before any fit, give the outputs of the original with the same elements masked.
        sizes: numbers to assume for symbolic dims, which stay symbolic.
        shapes: of inputs, as for `prune`.
        data: unlabelled calibration inputs (see `calibration.read`).
        samples: how many of them to use.
        train: gradient steps towards the original's outputs, with the zeros, and how; none if None.
        progress: True shows a bar with the time that is left; a function is told every stage.
        options: the other fields of `SparsifyOptions`: method, pattern, per, keep, only, ratios, recover, storage, ...

    Returns:
        The model, the plan and the report.

    Raises:
        UsageError: an option is out of range, or a glob matches nothing.
        GoalMissed: no contraction reads a weight that may change, or the result is not proven.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.sparsify("models/digits.onnx", 0.9, storage="sparse")
        >>> before, after = result.report.sizes
        >>> after < before / 3
        True
    """
    check_keywords(options, ZeroKeywords, "sparsity", "train", "data", "samples", "sizes", "shapes")
    inputs = RunInputs(data, samples, dict(sizes or {}), train)
    chosen = SparsifyOptions(sparsity=sparsity, **options)
    with shown(progress) as told:
        done = sparsified(load(source, shapes=shapes), chosen, inputs, verify=verify, progress=told)
    check_proven(done.groups, done.verdict)
    return SparsifyResult(same_kind(done.model, source), done.plan, done)
