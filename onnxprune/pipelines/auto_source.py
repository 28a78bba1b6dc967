"""Choose how to make any source of a model smaller, and give back the same kind."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from onnxprune.keywords import AutoKeywords, accepts_synonyms, check_keywords
from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.names import AUTO_BUDGETS
from onnxprune.pipelines.auto_recipes import VerbStep
from onnxprune.pipelines.auto_search import AutoOptions, AutoOutcome, auto_search
from onnxprune.pipelines.evaluate import EvaluationData
from onnxprune.pipelines.search_targets import quality_constraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.progress import Progress, shown
from onnxprune.shown import Shown


@dataclass(frozen=True)
class FrontPoint:
    """One model of the Pareto front.

    Attributes:
        model: of the kind that was given (a ModelProto for a path or bytes).
        recipe: the steps that made it, with all their options.
        shares: kind of cost -> share of the original's.
        values: by metric, on held-out samples.
    """

    model: Any
    recipe: Sequence[VerbStep]
    shares: Mapping[str, float]
    values: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class AutoResult(Shown):
    """What `auto` returns.

    Attributes:
        model: the best model, of the kind that was given (a ModelProto for a path or bytes).
        recipe: the steps that made it, with all their options.
        front: the models that no other beats in both cost and quality, the smallest first.
        report: all trials, and what was to be reached.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.auto("models/digits.onnx", size="50%", time=60)
        >>> result.report.chosen.shares["size"] <= 0.5
        True
    """

    model: Any
    recipe: Sequence[VerbStep]
    front: Sequence[FrontPoint]
    report: AutoOutcome


@accepts_synonyms(AutoKeywords)
def auto(
    source: Any,
    data: Any = None,
    *,
    time: float = 1200.0,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    folder: Any = None,
    progress: Progress | bool = False,
    **options: Unpack[AutoKeywords],
) -> AutoResult:
    """Choose among all verbs, within a time, what makes the best model of a size, a speed or a quality.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        data: unlabelled calibration inputs (see `calibration.read`), or labelled ones.
        time: seconds that the search takes.
        shapes: of inputs, as for `prune`.
        folder: where trials are kept; a search goes on with those that it finds there. A temporary folder if None.
        progress: True shows a bar with the time that is left; a function is told every trial.
        options: what is to be reached: a budget (`size`, `latency`, `macs`, `params`) as "50%" or an amount,
            `max_drop`, `min_sqnr`; `smallest`, the kind of cost to lower where there is no budget; `labels`, `metrics`
            and `output` as for `evaluate`, or `evaluate`, a measure of your own; samples, sizes, place, workers.

    Returns:
        The best model, the recipe that made it, the Pareto front and the report.

    Raises:
        UsageError: nothing says what is to be reached, or nothing can measure it.
        ModelError: the model is invalid.
        GoalMissed: no model was made in the time, or none is good enough.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.auto("models/digits.onnx", params="50%", time=60)
        >>> [step.verb for step in result.recipe]
        ['prune']
    """
    check_keywords(options, AutoKeywords, "time", "folder", "shapes", "data")
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, options.get("sizes") or {})
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as place, shown(progress) as told:
        chosen = _chosen(dict(options), data, seconds=time, folder=Path(folder or place))
        found = auto_search(model, data, chosen, progress=told)
        front = [
            FrontPoint(same_kind(found.model_of(trial), source), trial.steps, trial.shares, trial.values)
            for trial in found.front
        ]
    return AutoResult(same_kind(found.model, source), found.chosen.steps, front, found)


def _chosen(given: dict[str, Any], data: Any, **more: Any) -> AutoOptions:
    """The options of a search; what of the keywords is not one of its fields is put into them."""
    budgets = {kind: given.pop(kind, None) for kind in AUTO_BUDGETS}
    drop, sqnr, own = (given.pop(name, None) for name in ("max_drop", "min_sqnr", "evaluate"))
    judged = {name: given.pop(name) for name in ("labels", "metrics", "output") if name in given}
    wanted = None
    if judged or own is not None:
        wanted = EvaluationData(data or (), **judged, evaluation=None if own is None else Evaluation(own))
    floor = quality_constraint(drop, sqnr)
    return AutoOptions(budgets=budgets, floor=floor, wanted=wanted, **given, **more)
