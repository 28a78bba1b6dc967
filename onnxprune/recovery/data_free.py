"""Recovery without data: the mean contribution of removed channels, as far as weights tell it, goes into biases.

* `bias`: the mean of what was removed goes into the reader's bias. A channel that leaves a BatchNormalization has mean
  beta and deviation |gamma| (as long as the running statistics are those of the data) and is taken as Gaussian; so
  E[f(x)] of what is computed from it position by position is a sum over the density. Sums, poolings by means and
  layouts are computed on the means themselves. Source: Nagel et al., "Data-Free Quantization Through Weight
  Equalization and Bias Correction", 2019, section 4.2.
* `merge`: a removed channel is taken as a multiple of the one that is most similar to it among those that remain, which
  so gets its weights in the reader; what that leaves of the mean goes into the bias. Similarity is the cosine between
  filters with their biases, BatchNormalization included. What lies between must let positive factors pass. Source:
  Kim et al., "Neuron Merging: Compensating for Pruned Neurons", 2020.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import helper

from onnxprune.layers import CONVOLUTIONS, LinearLayer, Parameters, WeightPart, Weights, linear_layer
from onnxprune.model import Model
from onnxprune.model.traits import operators_where
from onnxprune.recovery.closed_form import RecoveryOptions, targets
from onnxprune.recovery.fits import METHODS, Method
from onnxprune.recovery.targets import KeptMask, LayerTarget
from onnxprune.rewriting import Removal
from onnxprune.runtime import run_from
from onnxprune.tracing import BINARY, UNARY, NodeView
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

# Where the density of a normal variable is summed, in deviations; the mean of Relu is right to 1e-4 of them.
POINTS = np.linspace(-6, 6, 401)
DENSITY = np.exp(-np.square(POINTS) / 2) / np.exp(-np.square(POINTS) / 2).sum()
LINEAR = operators_where(lambda traits: traits.linear or traits.moves, "")
HOMOGENEOUS = operators_where(lambda traits: traits.homogeneous, "")
# Least cosine of two filters, one of which may stand for the other.
SIMILAR = 0.45


def recover_without_data(
    removal: Removal, pruned: Model, method: str, *, progress: Callable[[str], None] = logger.info
) -> Model:
    """Give the layers behind the cut back what the weights say that they lost.

    Args:
        removal: what was removed, with the traced original.
        pruned: the smaller model.
        method: name of a recovery method that does not need data.
        progress: is told how many layers it was.

    Returns:
        The repaired model. Nothing judges it: there is no data.
    """
    parameters, known = Parameters(pruned), WeightMeans(removal)
    found = [t for t in targets(removal, parameters, RecoveryOptions(onward=False)) if isinstance(t, LayerTarget)]
    count = sum([_recover_layer(removal, parameters, known, target, METHODS[method]) for target in found])
    progress(f"repaired from the weights alone: {count} of {len(found)} layers")
    if not count:
        logger.warning(
            "nothing is repaired: %s cannot tell from the weights alone what the removed channels gave; --data could",
            method,
        )
    return parameters.finished() if count else pruned


def _recover_layer(
    removal: Removal, parameters: Parameters, known: WeightMeans, target: LayerTarget, method: Method
) -> bool:
    """Recover one layer; whether there was anything to do."""
    kept = KeptMask.of(removal, target.view, target.old)
    inputs = kept.inputs[kept.groups]
    if inputs.all():
        return False
    task = target.task(removal, parameters, METHODS["bias"])
    full, row = task.full, known.row(target.old)[kept.groups]
    partner, factor = known.partners(target.old, inputs) if method.merges else _alone(inputs)
    weight = full.copy()
    for group, (w, f) in enumerate(zip(weight, full, strict=True)):
        np.add.at(w, partner[group], factor[group, :, None] * f)
    weight = np.stack([w[which] for w, which in zip(weight, inputs, strict=True)])
    lost = np.where(inputs, 0, row - factor * np.take_along_axis(row, partner, axis=1))
    shift = np.einsum("gd,gdo->go", lost, full) * task.shifted
    if not factor.any() and not shift.any():
        return False
    task.write((weight, shift))
    return True


def _alone(inputs: Array) -> tuple[Array, Array]:
    """No entry of a row stands for another."""
    return np.zeros(inputs.shape, int), np.zeros(inputs.shape)


class WeightMeans:
    """What the weights say of the original's activations."""

    def __init__(self, removal: Removal) -> None:
        """Look at the weights as they act."""
        self._removal = removal
        self._tracing = removal.groups.tracing
        self._static = removal.groups.static
        self._weights = Weights(removal.groups)
        self._sampled: dict[str, tuple[str, Array] | None] = {}

    # --- means -------------------------------------------------------------------------------------------

    def row(self, layer: LinearLayer) -> Array:
        """float64[groups, D]: the mean of what the weight is multiplied with, zeros where it is unknown."""
        if (mean := self.mean(layer.input)) is None:
            shape = self._static.shapes[layer.node.input[layer.weight]]
            return np.zeros(layer.as_matrix(np.broadcast_to(False, shape)).shape[:2])
        places = layer.sample_positions(mean, mean.size, np.random.default_rng(0))
        return np.asarray(layer.input_rows(mean, places).mean(axis=1, dtype=np.float64))

    def mean(self, tensor: str) -> Array | None:
        """The mean of a tensor over all inputs, in its full shape; None where it is unknown."""
        shape, view = self._static.shapes.get(tensor), self._view_of(tensor)
        sampled = self.sampled(tensor)
        if shape is None or view is None:
            return None
        if sampled is not None:
            mean = np.tensordot(DENSITY, sampled[1], 1).astype(sampled[1].dtype)
            return np.array(np.broadcast_to(mean[None], shape))
        if view.node.op_type not in LINEAR or view.node.domain:
            return None
        given = {name: self.mean(name) for name in self._activations(view)}
        known = {name: value for name, value in given.items() if value is not None}
        return self._run(tensor, known) if len(known) == len(given) > 0 else None

    def sampled(self, tensor: str) -> tuple[str, Array] | None:
        """(the normal variables that it is computed from, its values where these are `POINTS`), if there are such.

        The values are [points, channels, 1, ...].
        """
        if tensor not in self._sampled:
            self._sampled[tensor] = self._sample(tensor)
        return self._sampled[tensor]

    def _sample(self, tensor: str) -> tuple[str, Array] | None:
        view = self._view_of(tensor)
        if view is None or view.node.domain:
            return None
        if view.node.op_type == "BatchNormalization":
            return self._normal(view)
        if view.node.op_type not in (*UNARY, *BINARY):
            return None
        given = {name: self.sampled(name) for name in self._activations(view)}
        known = {name: value for name, value in given.items() if value is not None}
        roots = {root for root, _ in known.values()}
        if len(known) == len(given) == len(roots) == 2 and view.node.op_type == "Add":
            return tensor, self._summed([value for _, value in known.values()])
        if len(known) != len(given) or len(roots) != 1:
            return None
        values = self._run(tensor, {name: value for name, (_, value) in known.items()})
        # Constants may differ from position to position, or be several.
        lined = values.dtype.kind == "f" and len(values) == len(POINTS) and values.size == len(POINTS) * values.shape[1]
        return (roots.pop(), values) if lined else None

    def _summed(self, terms: Sequence[Array]) -> Array:
        """The sum of independent terms, taken as normal."""
        means = [np.tensordot(DENSITY, term, 1) for term in terms]
        squares = [np.tensordot(DENSITY, np.square(term - mean), 1) for term, mean in zip(terms, means, strict=True)]
        points = POINTS.reshape(-1, *[1] * (terms[0].ndim - 1))
        return (sum(means) + np.sqrt(sum(squares)) * points).astype(terms[0].dtype)

    def _normal(self, norm: NodeView) -> tuple[str, Array] | None:
        """What leaves a BatchNormalization."""
        if not (norm.is_weight(1) and norm.is_weight(2)) or norm.attrs.get("training_mode"):
            return None
        scale, shift = (self._tracing.weight_value(norm.node.input[slot]) for slot in (1, 2))
        name = norm.node.output[0]
        if scale is None or scale.ndim != 1 or shift is None or name not in self._static.shapes:
            return None
        values = shift + np.abs(scale) * POINTS[:, None]
        dtype = helper.tensor_dtype_to_np_dtype(self._static.dtypes[name])
        return name, values.reshape(*values.shape, *[1] * (len(self._static.shapes[name]) - 2)).astype(dtype)

    # --- filters -----------------------------------------------------------------------------------------

    def partners(self, layer: LinearLayer, inputs: Array) -> tuple[Array, Array]:
        """For every entry of a layer's row, the one that stands for it and how many times; zero times for nothing.

        Args:
            layer: a reader.
            inputs: bool[groups, D], the entries that remain.
        """
        found, classes = self._filters(layer.input), self._classes(layer)
        if found is None or classes is None or len(inputs) > 1:
            return _alone(inputs)
        filters, made = found
        if not np.array_equal(np.repeat(made, len(classes) // len(made)), classes):
            return _alone(inputs)
        each = inputs.size // len(made)
        remain = inputs.reshape(-1, each).all(axis=1)
        norms = np.maximum(np.linalg.norm(filters, axis=1), 1e-30)
        cosines = np.where(remain, filters @ filters.T / np.outer(norms, norms), -1)
        best, most = cosines.argmax(axis=1), cosines.max(axis=1)
        factor = np.where(~remain & (most >= SIMILAR), norms / norms[best], 0)
        return (best[:, None] * each + np.arange(each)).reshape(1, -1), np.repeat(factor, each)[None]

    def _filters(self, tensor: str) -> tuple[Array, Array] | None:
        """What makes the channels of a tensor up to a factor: [channels, weights and bias], and their classes."""
        view = self._view_of(tensor)
        while view is not None and view.node.op_type in HOMOGENEOUS:
            view = self._view_of(view.node.input[0])
        if view is None:
            return None
        name, shifts = view.node.output[0], list[WeightPart | None]()
        while view is not None and view.node.op_type in ("Add", "BatchNormalization"):
            normed = view.node.op_type == "BatchNormalization"
            if (normed and self._weights.used(view, 1)) or not (normed or view.is_weight(0) != view.is_weight(1)):
                return None  # a norm that acts on its own, or a sum of activations
            slot = 2 if normed else int(view.is_weight(1))
            shifts.append(self._weights.used(view, slot))
            view = self._view_of(view.node.input[0 if normed else 1 - slot])
        layer = None if view is None else linear_layer(view)
        if view is None or layer is None or view.has(2) > (layer.bias is not None):
            return None
        shifts.append(self._weights.used(view, 2))
        factor = self._weights.used(view, layer.weight)
        weight = None if factor is None else self._weights.value(factor)
        biases = [self._weights.value(shift) for shift in shifts if shift is not None]
        if weight is None or any(b is None for b in biases):
            return None
        matrix = layer.scale * layer.as_matrix(weight)
        bias = sum((b.reshape(-1) for b in biases if b is not None), np.zeros(1))
        line = self._tracing.axes[name][1 if view.node.op_type in CONVOLUTIONS else -1]
        if len(matrix) != 1 or bias.size not in (1, matrix.shape[2]) or line.shape != matrix.shape[2:]:
            return None
        filters = np.vstack([matrix[0], np.broadcast_to(bias, matrix.shape[2])]).T
        return filters.astype(np.float64), self._weights.classes(line)

    def _classes(self, layer: LinearLayer) -> Array | None:
        """The classes of the positions that a layer sums over; None where these lie along several axes."""
        view, slot = self._tracing.by_output[layer.node.output[0]][0], 1 - layer.weight
        axes = self._tracing.axes.get(layer.input, ())
        lines = [axes[r.axis] for r in view.masked_axes if axes and r.slot == slot and not r.averaged]
        return self._weights.classes(lines[0]) if len(lines) == 1 and lines[0].ndim == 1 else None

    def _activations(self, view: NodeView) -> list[str]:
        """The inputs of a node that are computed from the graph's inputs."""
        return [name for slot, name in enumerate(view.node.input) if name and not view.constant[slot]]

    def _run(self, tensor: str, known: Mapping[str, Array]) -> Array:
        """The value of a tensor from those of the activations in front of it."""
        model = self._removal.groups.model
        ((value,),) = run_from(model, [known], [tensor])
        return np.asarray(value)

    def _view_of(self, tensor: str) -> NodeView | None:
        return self._tracing.by_output[tensor][0] if tensor in self._tracing.by_output else None
