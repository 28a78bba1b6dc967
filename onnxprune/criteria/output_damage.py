"""Damage to the outputs of the whole model when layers lose inputs and are fitted again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import onnx

from onnxprune.calibration import fixed_batch, is_batched
from onnxprune.layers import Parameters, quantized_parameters, recurrent_layer, weighted_layer
from onnxprune.model import Model, last_floats, unsqueezed
from onnxprune.model.run_order import Route
from onnxprune.progress import WorkPart
from onnxprune.runtime import (
    ActivationReader,
    AgreementAccumulator,
    RunMode,
    boundary_inputs,
    routes_of,
    run_changed,
    run_from,
)
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Array, Runs

# Most and fewest samples that the model is run on for every set of trials. In between, all trials together take about
# as long as a run of all samples, two trials of each group running half of the model.
SAMPLES, FEWEST = 32, 8
# Trials estimate: that the runtime rounds otherwise when it fuses operators is no matter.
FUSED = RunMode(fused=True)
Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class DamageTrial:
    """A layer that some inputs are taken from.

    Attributes:
        view: its node.
        weight: float[D, O] or [groups, D, O], re-fitted; rows of inputs that are gone are zero.
        shift: float[all outputs], what is added to its bias.
        way: of a recurrent layer, the direction that `weight` is of.
    """

    view: NodeView
    weight: Array
    shift: Array
    way: int = 0

    @property
    def matrix(self) -> Array:
        """The weight, [groups, D, O]."""
        return self.weight.reshape(-1, *self.weight.shape[-2:])


def impacts(
    groups: Groups,
    runs: Sequence[Mapping[str, Array]],
    trials: Mapping[Key, Sequence[DamageTrial]],
    progress: Callable[[str], None],
) -> dict[Key, float]:
    """Measure the relative squared error of the outputs under every set of trials.

    The original runs with the weights of a set in place of its own, all sets of the same layers in one session; sets
    whose layers share their weights with others, or hold none that is stored, are left out. Of outputs that are
    squeezed (by a Softmax), what comes before counts: large errors would all look alike behind it. Of ids (by an
    ArgMax), the last floats before them do.

    Args:
        groups: the traced original.
        runs: inputs.
        trials: sets of layers with other weights.
        progress: is told about every set.

    Returns:
        Error of every set; without those whose outputs are no numbers.
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
            changed = [_parameters(parameters, trials[key], nodes) for key in keys]
            ran = _outputs(parameters.finished(), changed, held, (names, wanted, behind[made]), routes)
            for key in keys:
                progress(WorkPart.of("weighing cut", len(found) + 1, len(trials)))
                tally = AgreementAccumulator()
                for old, new in zip(wanted, islice(ran, len(runs)), strict=True):
                    tally.add(old, new)
                found[key] = tally.agreement().error
    return {key: error for key, error in found.items() if np.isfinite(error)}


def output_error(groups: Groups, other: Model, runs: Runs) -> float:
    """Measure the relative squared error of the outputs of another model, as `impacts` does.

    Args:
        groups: the traced original.
        other: a flat model whose tensors are called as those of the original.
        runs: inputs.

    Returns:
        The error; NaN where the outputs are no numbers.
    """
    model = groups.tracing.model
    routes = routes_of(model, runs)
    names = _judged(Parameters(model, routes), groups.static.dtypes)
    tally = AgreementAccumulator()
    olds, news = (run_from(one, runs, names, routes=routes) for one in (model, other))
    for old, new in zip(olds, news, strict=True):
        tally.add(old, new)
    return tally.agreement().error


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


def parted(groups: Groups, runs: Runs) -> tuple[Runs, Runs]:
    """Runs to fit to, and some at even steps to judge, of just enough samples where runs can be cut.

    One run that cannot be cut serves as both.
    """
    model = groups.model
    each = max((len(value) for value in runs[0].values() if value.ndim), default=1)
    wanted = min(SAMPLES, max(FEWEST, each * len(runs) // max(1, len(groups.groups))))
    count = max(1, min(len(runs) // 2, -(-wanted // max(each, 1))))
    places = {i * len(runs) // count for i in range(count)}
    fitting = [run for i, run in enumerate(runs) if i not in places]
    judging = [runs[i] for i in sorted(places)]
    few = -(-wanted // count)
    if few < each and fixed_batch(model) is None and is_batched(model, runs):
        fitting += [{name: value[few:] for name, value in run.items()} for run in judging if _samples(run) > few]
        judging = [{name: value[:few] for name, value in run.items()} for run in judging]
    return fitting or runs, judging


def _samples(run: Mapping[str, Array]) -> int:
    return min(map(len, run.values()))


def _is_own(parameters: Parameters, view: NodeView) -> bool:
    """Whether the weights of a layer are stored, and read by it alone."""
    recurrent = recurrent_layer(view)
    if recurrent is not None:
        return all(map(parameters.is_own, recurrent.weights))
    layer = weighted_layer(view)
    assert layer is not None
    return parameters.is_own(layer.node.input[layer.weight]) or quantized_parameters(parameters, layer) is not None


def _parameters(
    parameters: Parameters, trials: Sequence[DamageTrial], nodes: Mapping[str, onnx.NodeProto]
) -> dict[str, Array]:
    """Name -> value of the weights and biases that trials put in place of stored ones, rounded where these are.

    A layer without a bias that may have one gets one of zeros.
    """
    old: dict[str, Array] = {}
    for trial in trials:
        node = nodes[trial.view.node.output[0]]
        put = _put_recurrent if recurrent_layer(trial.view) is not None else _put
        put(parameters, trial, node, old)
    found = {parameters.present_name(name): parameters.value(name) for name in old}
    for name, value in old.items():
        parameters.store(name, value)
    return found


def _put(parameters: Parameters, trial: DamageTrial, node: onnx.NodeProto, old: dict[str, Array]) -> None:
    """Give a layer the weight and bias of a trial, and keep those that it had."""
    layer = weighted_layer(trial.view, node)
    assert layer is not None
    whole = quantized_parameters(parameters, layer)
    if whole is None:
        parameters.shift(layer, np.zeros(len(trial.shift)))
    bias = parameters.bias(layer, len(trial.shift))
    weight = layer.node.input[layer.weight]
    names = whole.names if whole is not None else (weight, *([bias[0].input[bias[1]]] if bias else []))
    old |= {name: parameters.value(name) for name in names}
    if whole is not None:
        whole.write(trial.matrix / layer.scale, trial.shift)
    else:
        parameters.store(weight, layer.tensor(trial.matrix / layer.scale, old[weight].shape))
        parameters.shift(layer, trial.shift)


def _put_recurrent(parameters: Parameters, trial: DamageTrial, node: onnx.NodeProto, old: dict[str, Array]) -> None:
    """Give one direction of a recurrent layer the weights and bias of a trial, and keep those that it had."""
    layer = recurrent_layer(trial.view, node)
    assert layer is not None
    values = [np.array(parameters.value(name)) for name in layer.weights]
    inputs = values[0].shape[2]
    for name, value in zip(layer.weights, values, strict=True):
        old.setdefault(name, np.array(value))
    matrix = trial.weight.T
    values[0][trial.way], values[1][trial.way] = matrix[:, :inputs], matrix[:, inputs:]
    if len(values) > 2:
        values[2][trial.way, : len(matrix)] += trial.shift
    for name, value in zip(layer.weights, values, strict=True):
        parameters.store(name, value)


def _outputs(
    model: Model,
    changed: Sequence[Mapping[str, Array]],
    held: Runs,
    outputs: tuple[Sequence[str], Sequence[Sequence[Any]], Collection[str]],
    routes: Sequence[Route],
) -> Iterator[Sequence[Any]]:
    """The outputs of every run with every set of parameters in place of what is stored.

    One session runs them all, parameters being its inputs; whole numbers may be of types that it takes as no inputs.

    Args:
        model: the original.
        changed: the sets.
        held: per run, the values of tensors in front of the change.
        outputs: their names, their values of every run before the change, and all tensors that it reaches.
        routes: the way of every run.
    """
    names, before, reached = outputs
    if all(value.dtype.kind == "f" for values in changed for value in values.values()):
        given, many = [{**run, **values} for values in changed for run in held], len(changed)
        yield from run_changed(model, given, names, [*before] * many, reached, routes=[*routes] * many, mode=FUSED)
        return
    for values in changed:
        other = replace(model, values={**model.values, **{n: partial(np.asarray, v) for n, v in values.items()}})
        yield from run_changed(other, held, names, before, reached, routes=routes)
