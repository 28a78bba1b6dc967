"""Damage to the outputs of the whole model when layers lose inputs and are fitted again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import onnx

from onnxprune.layers import Parameters, quantized_parameters, weighted_layer
from onnxprune.model import last_floats, unsqueezed
from onnxprune.progress import WorkPart
from onnxprune.runtime import ActivationReader, AgreementAccumulator, boundary_inputs, routes_of, run_changed, run_from
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Array

# Samples, at least, that the model is run on for every set of trials.
SAMPLES = 32
Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class DamageTrial:
    """A layer that some inputs are taken from.

    Attributes:
        view: its node.
        weight: float[D, O], re-fitted; rows of inputs that are gone are zero.
        shift: float[O], what is added to its bias.
    """

    view: NodeView
    weight: Array
    shift: Array


def impacts(
    groups: Groups,
    runs: Sequence[Mapping[str, Array]],
    trials: Mapping[Key, Sequence[DamageTrial]],
    progress: Callable[[str], None],
) -> dict[Key, float]:
    """The relative squared error of the outputs under every set of trials.

    The original runs with the weights of one set at a time; sets whose layers share their weights with others, or hold
    none that is stored, are left out. Of outputs that are squeezed (by a Softmax), what comes before counts: large
    errors would all look alike behind it. Of ids (by an ArgMax), the last floats before them do.
    """
    model = groups.tracing.model
    routes = routes_of(model, runs)
    parameters = Parameters(model, routes)
    nodes = {n.output[0]: n for n in parameters.proto.graph.node if n.output}
    names = _judged(parameters, groups.static.dtypes)
    wanted = list(run_from(model, runs, names, routes=routes))
    at: dict[tuple[str, ...], list[Key]] = {}
    for key, layers in trials.items():
        if all(_is_own(parameters, t.view) for t in layers):
            at.setdefault(tuple(t.view.node.output[0] for t in layers), []).append(key)
    behind = {made: parameters.descendants(made) for made in at}
    fronts = {made: _front(parameters, behind[made], groups.static.dtypes) for made in at}
    found: dict[Key, float] = {}
    with ActivationReader(model, runs, [name for front in fronts.values() for name in front], routes=routes) as walk:
        for made, keys in at.items():
            taken = walk.read(fronts[made])
            held = [{**run, **values} for run, values in zip(runs, taken, strict=True)]
            for key in keys:
                progress(WorkPart.of("weighing cut", len(found) + 1, len(trials)))
                undo = [_put(parameters, trial, nodes[trial.view.node.output[0]]) for trial in trials[key]]
                tally = AgreementAccumulator()
                ran = run_changed(parameters.finished(), held, names, wanted, behind[made], routes=routes)
                for old, new in zip(wanted, ran, strict=True):
                    tally.add(old, new)
                for back in undo:
                    back()
                found[key] = tally.agreement().error
    return {key: error for key, error in found.items() if np.isfinite(error)}


def _judged(parameters: Parameters, dtypes: Mapping[str, int]) -> list[str]:
    """What is compared: outputs, or what these were squeezed from, and the last floats before those that are ids."""
    graph = parameters.proto.graph
    known = [course.known - course.stacked for course in parameters.courses]
    floats = [name for name in last_floats(graph, dtypes) if all(name in names for names in known)]
    return unsqueezed(graph, [*(value.name for value in graph.output), *floats])


def _front(parameters: Parameters, changed: Collection[str], dtypes: Mapping[str, int]) -> list[str]:
    """What the nodes that make the tensors `changed` read of others, on any route; nothing where it cannot be held."""
    found = [boundary_inputs(course.model, changed, dtypes, course.route) for course in parameters.courses]
    return [] if None in found else list(dict.fromkeys(name for names in found for name in names or ()))


def parted(runs: Sequence[Mapping[str, Array]]) -> tuple[Sequence[Mapping[str, Array]], Sequence[Mapping[str, Array]]]:
    """Runs to fit to; and some at even steps, with enough samples, to judge. One run serves as both."""
    each = max((len(value) for value in runs[0].values() if value.ndim), default=1)
    count = max(1, min(len(runs) // 2, -(-SAMPLES // max(each, 1))))
    judging = {i * len(runs) // count for i in range(count)}
    fitting = [run for i, run in enumerate(runs) if i not in judging]
    return fitting or runs, [runs[i] for i in sorted(judging)]


def _is_own(parameters: Parameters, view: NodeView) -> bool:
    """Whether the weight of a layer is stored, and read by it alone."""
    layer = weighted_layer(view)
    assert layer is not None
    return parameters.is_own(layer.node.input[layer.weight]) or quantized_parameters(parameters, layer) is not None


def _put(parameters: Parameters, trial: DamageTrial, node: onnx.NodeProto) -> Callable[[], None]:
    """Replace the parameters of a layer, rounded where they are; what is returned brings the old ones back."""
    layer = weighted_layer(trial.view, node)
    assert layer is not None
    whole = quantized_parameters(parameters, layer)
    if whole is not None:
        kept = {name: parameters.value(name) for name in whole.names}
        whole.write(trial.weight[None] / layer.scale, trial.shift)
        return partial(_store, parameters, kept)
    parameters.shift(layer, np.zeros(len(trial.shift)))  # makes a bias where there is none
    bias = parameters.bias(layer, len(trial.shift))
    weight = layer.node.input[layer.weight]
    old = {name: parameters.value(name) for name in (weight, *([bias[0].input[bias[1]]] if bias else []))}
    parameters.store(weight, layer.tensor(trial.weight[None] / layer.scale, old[weight].shape))
    parameters.shift(layer, trial.shift)
    return partial(_store, parameters, old)


def _store(parameters: Parameters, values: Mapping[str, Array]) -> None:
    for name, value in values.items():
        parameters.store(name, value)
