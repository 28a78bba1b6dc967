"""What ratios would leave of a model: nothing is scored, repaired, proven or written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import Selection, select
from onnxprune.cost import latency
from onnxprune.cost.counts import of_trace
from onnxprune.model import file_size
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Groups


@dataclass(frozen=True)
class Forecast:
    """What is expected to be left of a model.

    Attributes:
        ratio: the share of the units of every group that goes; 0 is the model as it is.
        units: units that stay.
        params: elements of all weights.
        macs: multiply-accumulates for one sample.
        size: bytes of the file.
        seconds: of a run, measured with weights that nothing chose; None where times are not asked for.
    """

    ratio: float
    units: int
    params: float
    macs: float
    size: float
    seconds: float | None


def forecast(
    groups: Groups, ratios: Sequence[float], place: Place | None, progress: Callable[[str], object]
) -> list[Forecast]:
    """Expect what is left when the same share of every group goes.

    Which units go plays no part; the graph is rewritten without them, so that what goes with them is counted, too, and
    is timed in turn with the original: shapes decide about times, weights do not. What repair adds (a bias where there
    was none) is in none of it.

    Args:
        groups: the traced model.
        ratios: shares of the units.
        place: where times are measured; nowhere if None.
        progress: is told about measurements.

    Returns:
        The model as it is, then what each ratio leaves.

    Raises:
        GoalMissed: there is nothing to prune.
        RunError: times are asked for, and the model does not run.
    """
    scores = np.zeros(groups.classes.count)
    timer = None if place is None else latency.Timer(groups.model, place, progress)
    nothing = Selection({}, counts=np.zeros(len(groups.groups), np.int64))
    total = sum(group.units for group in groups.groups)
    found = []
    for ratio in (0.0, *ratios):
        chosen = select(groups, scores, Options(ratio=ratio)) if ratio else nothing
        removed = removed_classes(groups, chosen.removed)
        small = rewrite(groups, removed) if ratio else groups.model
        cost = of_trace(groups.tracing, small, Removal(groups, removed).size)
        seconds = None if timer is None else timer.seconds(small) if ratio else timer.before
        units = total - int(chosen.counts.sum())
        left = {"params": cost.params, "macs": cost.macs, "size": file_size(small)}
        found.append(Forecast(ratio, units, seconds=seconds, **left))
    return found
