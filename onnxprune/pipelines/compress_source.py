"""Compress any source of a model, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.keywords import ProductKeywords, accepts_synonyms, check_keywords
from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.names import RANK_BUDGETS
from onnxprune.pipelines.compress import Compressed, compressed
from onnxprune.pipelines.low_rank import Factorised, factorised
from onnxprune.pipelines.prune import check_proven
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress, shown
from onnxprune.rewriting import Plan
from onnxprune.runtime.bench import Place
from onnxprune.shown import Shown


@dataclass(frozen=True, repr=False)
class CompressResult(Shown):
    """What `compress` returns.

    Attributes:
        model: the smaller model, of the kind that was given (a ModelProto for a path or bytes).
        exact: what was taken out without loss, and its proof; None if it was not asked for.
        low_rank: what became products of two, and the proof; None if it was not asked for.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.compress("models/digits.onnx")
        >>> result.exact.nodes, result.exact.verdict.ok  # the example is tidy already
        ((15, 15), True)
    """

    model: Any
    exact: Compressed | None = None
    low_rank: Factorised | None = None

    @property
    def plan(self) -> Plan | None:
        """Which weights became products; None without any."""
        return None if self.low_rank is None else self.low_rank.plan


@accepts_synonyms(ProductKeywords)
def compress(
    source: Any,
    *,
    exact: bool | None = None,
    data: Any = None,
    samples: int = 256,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    verify: bool = True,
    progress: Progress | bool = False,
    **options: Unpack[ProductKeywords],
) -> CompressResult:
    """Take out of a model what its function does not need, or make products of its weights.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        exact: take out what is not needed, without loss; where None, unless a ratio, ranks or a budget are given.
        data: inputs (see `calibration.read`) on which an exact result must equal the original, besides random ones;
            products are chosen and fitted on them.
        samples: how many of them to use.
        sizes: numbers for symbolic dims.
        shapes: of inputs, as for `prune`.
        verify: prove the result.
        progress: True shows a bar with the time that is left; a function is told every stage.
        options: the fields of `LowRankOptions`: ratio, ranks, params, macs, size, only, keep, round_to, ...

    Returns:
        The smaller model, and what was done.

    Raises:
        UsageError: an option is out of range, a glob matches nothing, or the data do not fit the model.
        ModelError: the model is invalid.
        GoalMissed: no weight may become a product, or the result is not proven.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.compress("models/digits.onnx", ranks={"fc.weight": 16}, allow_slower=True)
        >>> [(weight.name, weight.shape, weight.rank) for weight in result.low_rank.weights]
        [('fc.weight', (96, 256), 16)]
    """
    check_keywords(options, ProductKeywords, "exact", "data", "samples", "sizes", "shapes")
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, dict(sizes or {}))
    inputs = RunInputs(data, samples, dict(sizes or {}))
    lossy = any(options.get(name) for name in ("ratio", "ranks", *RANK_BUDGETS))
    chosen = LowRankOptions(**options)
    with shown(progress) as told:
        wanted = exact or (exact is None and not lossy)
        first = compressed(model, inputs, verify=verify, progress=told) if wanted else None
        if first is not None:
            check_proven(first.groups, first.verdict)
            model = first.model
        if not lossy:
            return CompressResult(same_kind(model, source), first)
        place = None if chosen.allow_slower else Place(sizes=inputs.sizes)
        last = factorised(model, chosen, inputs, verify=verify, place=place, progress=told)
    check_proven(last.groups, last.verdict)
    return CompressResult(same_kind(last.model, source), first, last)
