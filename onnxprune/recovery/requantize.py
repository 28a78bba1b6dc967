"""Weights of a model that a quantiser made, chosen again on its scales: by what the layers make, not by themselves.

A quantiser rounds every weight to the nearest number. Here the layers are fitted in graph order to the outputs of a
float original, on the inputs that the quantised model, as far as it is fitted, gives, and rounded so that the outputs
change least (`recovery/on_grid.py`). The original may be a larger model that the quantised one was pruned from: then
what went and what was rounded are made up for together. What is zero in the original stays zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnxprune.errors import UsageError
from onnxprune.layers import Parameters, quantized_parameters, weighted_layer
from onnxprune.model import Model
from onnxprune.recovery.closed_form import RecoveryOptions, RecoveryReport, fit_targets, held_out, ready
from onnxprune.recovery.downstream import downstream_of
from onnxprune.recovery.on_grid import QuantizedTarget
from onnxprune.recovery.targets import WIDEST, Target
from onnxprune.rewriting import Removal, agreement
from onnxprune.rewriting.rewrite import nested
from onnxprune.runtime import routes_of
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Feeds


def requantized(
    removal: Removal,
    quantized: Groups,
    origins: Mapping[str, str],
    runs: Sequence[Feeds],
    *,
    progress: Callable[[str], None] = lambda stage: None,
) -> tuple[Model, RecoveryReport]:
    """Fit and round the weights of a quantised model again.

    Args:
        removal: the traced original, and what was removed of it before it was quantised.
        quantized: the traced quantised model.
        origins: name of a node there -> name of the node that it was made of.
        runs: calibration inputs, at least two; some of them judge what is kept.
        progress: is told about every layer.

    Returns:
        The model with other weights, of equal operators and types (or as it was, if that is no worse), and what was
        done.

    Raises:
        UsageError: there are fewer than two runs.
    """
    if len(runs) < 2:
        raise UsageError("calibration data: one batch is not enough to fit and to judge", hint="give more samples")
    options = RecoveryOptions()
    runs, held = held_out(runs)
    flat, given = quantized.tracing.model, quantized.model
    parameters = Parameters(flat, routes_of(flat, runs))
    targets = ready(_targets(removal, quantized, origins, parameters), options, parameters)
    fits = fit_targets(removal, parameters, targets, runs, options, progress=progress)
    model = parameters.finished() if flat is given else nested(parameters.finished())
    before, after = (agreement(removal, m, held) for m in (given, model))
    kept = after.error < before.error if before.is_known else any(fit.kept for fit in fits)
    return model if kept else given, RecoveryReport(tuple(fits), before, after, kept)


def _targets(removal: Removal, quantized: Groups, origins: Mapping[str, str], parameters: Parameters) -> list[Target]:
    """The layers of whole numbers whose original is known, in graph order."""
    nodes = {node.output[0]: node for node in parameters.proto.graph.node if node.output}
    views: dict[str, NodeView] = {view.name: view for view, rule in removal.groups.tracing.views if rule is not None}
    found: list[Target] = []
    for view, _ in quantized.tracing.views:
        origin = views.get(origins.get(view.name, ""))
        node = nodes.get(view.node.output[0]) if view.node.output else None
        if origin is None or node is None or node.output[0] not in parameters.reached:
            continue
        old, new = weighted_layer(origin), weighted_layer(view, node)
        if old is None or new is None or removal.shrinks(old.input, old.drawn):
            continue
        own = quantized_parameters(parameters, new)
        if own is not None and own.grid.entry.shape[1] <= WIDEST:
            downstream = downstream_of(removal, parameters, own.layer)
            found.append(QuantizedTarget(origin, node, old, own.layer, downstream, own=own, sparse=True))
    return found
