"""Drop blocks of any source of a model, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from onnxprune.errors import GoalMissed, UsageError
from onnxprune.keywords import BlockKeywords, accepts_synonyms, check_keywords
from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.names import BLOCK_BUDGETS
from onnxprune.pipelines.drop import drop_blocks
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.prune import check_proven
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress, shown
from onnxprune.rewriting import Plan
from onnxprune.shown import Shown


@dataclass(frozen=True, repr=False)
class DropResult(Shown):
    """What `drop` returns.

    Attributes:
        model: the smaller model, of the kind that was given (a ModelProto for a path or bytes).
        plan: which blocks were dropped.
        report: all blocks and what they are worth, costs before and after, what was fitted, and the proofs.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.drop("models/digits.onnx", count=1)
        >>> [scored.block.name for scored in result.report.dropped], result.report.verdict.ok
        (['residual'], True)
    """

    model: Any
    plan: Plan
    report: Dropped


@accepts_synonyms(BlockKeywords)
def drop(
    source: Any,
    *,
    verify: bool = True,
    sizes: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    data: Any = None,
    samples: int = 256,
    progress: Progress | bool = False,
    **options: Unpack[BlockKeywords],
) -> DropResult:
    """Take whole layers and blocks out, and prove the result.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        verify: prove the result, before and after the repair.
        sizes: numbers for symbolic dims.
        shapes: of inputs, as for `prune`.
        data: unlabelled calibration inputs (see `calibration.read`), which choose the blocks and repair the model.
        samples: how many of them to use.
        progress: True shows a bar with the time that is left; a function is told every stage.
        options: how much goes, one of `blocks` (globs), `count`, `ratio`, or budgets `params`, `macs`, `size`; and
            the other fields of `DropOptions`: criterion, units, keep, recover, allow_io_changes, seed.

    Returns:
        The smaller model, the plan and the report.

    Raises:
        UsageError: an option is out of range, or a name is that of no block.
        ModelError: the model is invalid.
        GoalMissed: no block may go, a budget cannot be met, or the result is not proven.

    Example:
        >>> import onnxprune
        >>> data = "models/digits_calibration.npz"
        >>> report = onnxprune.drop("models/digits.onnx", params="60%", data=data, samples=64).report
        >>> report.stand_ins[0].form, report.judged.error < report.bare.error
        ('map', True)
    """
    check_keywords(options, BlockKeywords, "data", "samples", "sizes", "shapes")
    chosen = drop_options(options)
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, sizes or {})
    with shown(progress) as told:
        done = drop_blocks(model, chosen, RunInputs(data, samples, dict(sizes or {})), verify=verify, progress=told)
    check_dropped(done)
    return DropResult(same_kind(done.model, source), done.plan, done)


def drop_options(keywords: Mapping[str, Any]) -> DropOptions:
    """Read keyword arguments, in which every budget has a name of its own.

    Args:
        keywords: fields of `DropOptions`, and budgets.

    Raises:
        UsageError: one is out of range, or nothing says how much goes.
    """
    given = dict(keywords)
    budgets = {kind: given.pop(kind) for kind in BLOCK_BUDGETS if kind in given}
    chosen = DropOptions(budgets=budgets, **given)
    if chosen.is_open:
        raise UsageError("nothing says what to drop", hint="give one of blocks, count, ratio, params, macs, size")
    return chosen


def check_dropped(done: Dropped) -> None:
    """Refuse a result that is not proven, or that misses a budget.

    Args:
        done: what dropping gave.

    Raises:
        GoalMissed: it is such a one.
    """
    check_proven(done.groups, done.verdict)
    check_proven(done.groups, done.repaired_verdict)
    if missed := [goal.kind for goal in done.goals if not goal.met]:
        raise GoalMissed(f"the budget on {missed[0]} cannot be met", hint="no other block can go")
