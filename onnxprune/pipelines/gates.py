"""Gates of an evaluation: how much worse, how far off and how slow models may be, beside the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxprune.allocation.amount import Amount
from onnxprune.errors import UsageError
from onnxprune.pipelines.evaluate import Evaluated, ModelScores
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.sparsity import Speed


@dataclass(frozen=True)
class Gates:
    """What models must keep; None where nothing is asked for.

    Attributes:
        drop: most that the first metric may drop.
        divergence: most that outputs may differ from those of the first model.
        latency: most that a run may take; a share is one of the first model's time.
    """

    drop: QualityConstraint | None = None
    divergence: QualityConstraint | None = None
    latency: Amount | None = None


def failed_gates(of: Evaluated, names: Sequence[str], gates: Gates, speeds: Sequence[Speed] = ()) -> list[str]:
    """Hold all models against the first.

    Args:
        of: what they score.
        names: what they are called.
        gates: what they must keep.
        speeds: of all but the first, against the first, where the time counts.

    Returns:
        What each model fails at.

    Raises:
        UsageError: there is nothing to compare.
    """
    found = []
    for place, (name, model) in enumerate(zip(names[1:], of.models[1:], strict=True)):
        problems = [*_dropped(of, model, gates.drop), *_diverged(model, gates.divergence)]
        if gates.latency is not None:
            problems += _slow(speeds[place], gates.latency)
        found += [f"{name}: {problem}" for problem in problems]
    return found


def _dropped(of: Evaluated, model: ModelScores, most: QualityConstraint | None) -> Iterator[str]:
    """Whether the first metric is worse by more than is allowed."""
    if most is None:
        return
    metric = next(iter(of.models[0].metrics), None)
    if metric is None:
        raise UsageError("--max-drop needs a measure", hint="add --labels KEY, or --eval WHAT")
    sign = 1 if all(known.rises for known in of.metrics if known.name == metric) else -1
    whole, value = of.models[0].metrics[metric], model.metrics[metric]
    if not most.holds({"value": sign * value}, {"value": sign * whole}):
        allowed = f"{100 * most.limit:g}%" if most.relative else f"{most.limit:g}"
        yield f"{metric} is {value:.4g}, the first's {whole:.4g}: more than {allowed} worse"


def _diverged(model: ModelScores, most: QualityConstraint | None) -> Iterator[str]:
    """Whether outputs differ by more than is allowed."""
    if most is None:
        return
    value = None if model.agreement is None else getattr(model.agreement, most.metric)
    if value is None:
        raise UsageError(f"--max-divergence: {most.metric!r} does not apply to this model", hint="leave out the metric")
    if not most.holds({most.metric: value}, {}):
        yield f"its outputs diverge by {most.metric}={value:.4g}: more than {most.limit:g}"


def _slow(speed: Speed, most: Amount) -> Iterator[str]:
    """Whether it was not measured to take as little time as it must, noise included."""
    limit = most.limit(speed.before) / speed.before
    if not speed.ratio.high <= limit:
        measured = f"{100 * speed.ratio.value:.3g} % of the first's time (to {100 * speed.ratio.high:.3g} %)"
        yield f"it takes {measured}, not at most {100 * limit:.3g} %"
