"""Stand-ins for missing data: BatchNormalization statistics matched to random inputs.

Random numbers pass through a network with other means and deviations than the data that it was trained on.
BatchNormalization keeps those: in a stand-in whose running statistics are the ones of random inputs, every normalised
channel has the mean and the deviation that it had in training, layer after layer. Scores and fitted weights of the
stand-in are taken for the network itself, whose layers get inputs of the same first two moments. Yin et al. ("Dreaming
to Distill", 2020) search, by gradients, for inputs with these statistics; here the statistics follow the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.layers.parameters import Parameters
from onnxprune.model import Model
from onnxprune.model.flatten import closed, flattened
from onnxprune.runtime import ActivationReader, Moments, routes_of
from onnxprune.tracing import Groups, retrace
from onnxprune.typing import Array

NORM = "BatchNormalization"
# Its slots: the running mean and variance.
STATISTICS = (3, 4)


def matched(groups: Groups, runs: Sequence[Mapping[str, Array]], *, random: bool) -> Groups:
    """The trace that scores and fits look at: that of the stand-in, if `runs` are random.

    Raises:
        RunError: the model does not run.
    """
    return stand_in(groups, runs) if runs and random else groups


def stand_in(groups: Groups, runs: Sequence[Mapping[str, Array]]) -> Groups:
    """The trace of the stand-in under random inputs `runs`, with the same classes; `groups` where there can be none.

    Raises:
        RunError: the model does not run.
    """
    model = with_statistics_of(groups.model, runs)
    if model is groups.model:
        return groups
    found = retrace(replace(groups, model=model), dict(groups.static.sizes))
    return found if np.array_equal(found.classes.of, groups.classes.of) else groups


def with_statistics_of(model: Model, runs: Sequence[Mapping[str, Array]]) -> Model:
    """A copy of a model whose BatchNormalization statistics are those of `runs`; the model itself where it has none.

    Raises:
        RunError: the model does not run.
    """
    flat = flattened(model)
    routes = routes_of(flat, runs)
    parameters = Parameters(flat, routes)
    norms = [norm for norm in _norms(parameters) if norm.output[0] in parameters.reached]
    if not norms:
        return model
    with ActivationReader(parameters.model, runs, [norm.input[0] for norm in norms], routes=routes) as walk:
        for norm in norms:
            moments = _moments(at[norm.input[0]] for visits in walk.visits([norm.input[0]]) for at in visits)
            for slot, value in zip(STATISTICS, (moments.mean, moments.variance), strict=True):
                parameters.store(norm.input[slot], value.reshape(-1))
    return closed(parameters.finished())


def restored(model: Model, source: Model) -> Model:
    """A copy of a model with the BatchNormalization statistics that another has under the same names."""
    parameters, theirs = Parameters(flattened(model)), Parameters(flattened(source))
    for norm in _norms(parameters):
        for slot in STATISTICS:
            parameters.store(norm.input[slot], theirs.value(norm.input[slot]))
    return closed(parameters.finished())


def _norms(parameters: Parameters) -> Iterator[onnx.NodeProto]:
    """BatchNormalizations that use running statistics of their own."""
    for node in parameters.proto.graph.node:
        if node.op_type != NORM or node.domain not in ("", "ai.onnx"):
            continue
        trains = any(a.name == "training_mode" and a.i for a in node.attribute) or any(node.output[1:])
        if not trains and all(parameters.is_own(node.input[slot]) for slot in STATISTICS):
            yield node


def _moments(values: Iterable[Array]) -> Moments:
    """Moments of every channel (axis 1) over all other axes of all arrays."""
    found: Moments | None = None
    for value in values:
        if found is None:
            shape = (1, value.shape[1], *[1] * (value.ndim - 2))
            found = Moments(shape, np.float64)
        found.add(value)
    assert found is not None, "a norm that no run reaches has no moments"
    return found
