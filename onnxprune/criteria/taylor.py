"""First-order change of the outputs when a unit is removed, by its activations or by its weights.

    taylor:         mean over samples of (sum over the unit's activations of a * da)^2
    taylor-weight:  sum over the unit's weights of |w * dw|

with da and dw the gradients of randomly signed outputs (`criteria/output_gradients.py`): no labels are needed, and the
first is in squared units of the outputs, so that groups can be compared as they are.

Sources: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", 2017, section 2.2;
Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, eq. 8; of single weights: Lee et al.,
"SNIP", 2019, eq. 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, Member, first_known
from onnxprune.criteria.magnitude import members, norms
from onnxprune.criteria.output_gradients import movements
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import WeightPart
from onnxprune.typing import Array

SOURCE = "Molchanov et al. 2019, arXiv:1906.10771"
# Of a weight and its gradient.
Elementwise = Callable[[Array, Array], Array]


@criterion("taylor", needs_data=True, aggregate="sum", normalize="none", source=SOURCE)
def taylor(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Squared first-order movement of the outputs when a unit's activations go."""

    def measured() -> Iterator[Member]:
        units = _units(evidence)
        axes = {tensor: axis for tensor, (axis, _) in units.items()}
        rows: dict[str, list[Array]] = {}
        for found in movements(evidence, rng, axes):
            for tensor, sums in found.taps.items():
                rows.setdefault(tensor, []).append(np.square(_by_unit(sums, units[tensor][1])))
        for tensor, moved in rows.items():
            ids = np.unique(units[tensor][1])
            yield ids[ids >= 0], np.concatenate(moved).mean(axis=0)[ids >= 0]

    return first_known(evidence.groups, aggregate, measured, lambda: norms(evidence.weights))


def _units(evidence: Evidence) -> dict[str, tuple[int, Array]]:
    """Tensor that is read -> the axis of its units, and the class of every position there."""
    names = {o for node in evidence.groups.model.proto.graph.node for o in node.output}
    found: dict[str, tuple[int, Array]] = {}
    for reader in evidence.activations.readers:
        if reader.tensor in names and reader.field.size == reader.field.shape[reader.axis]:
            found.setdefault(reader.tensor, (reader.axis, evidence.weights.classes(reader.field).reshape(-1)))
    return found


def _by_unit(sums: Array, ids: Array) -> Array:
    """Sums over positions [samples, positions] of one class: [samples, classes in ascending order]."""
    classes, place = np.unique(ids, return_inverse=True)
    rows = sums.reshape(-1, len(ids)).astype(np.float64)
    if len(classes) == len(ids):
        return rows[:, np.argsort(place)]
    return np.stack([np.bincount(place, weights=row, minlength=len(classes)) for row in rows])


@criterion(
    "taylor-weight",
    needs_data=True,
    aggregate="sum",
    normalize="none",
    source=SOURCE,
)
def taylor_weight(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Sum of |weight times gradient| over all weights of a unit."""
    return by_weight(evidence, rng, aggregate, lambda weight, gradient: np.abs(weight * gradient))


def by_weight(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate, elementwise: Elementwise) -> Array:
    """Mean over draws of a function of weight and gradient, summed over all weights of a unit.

    A weight that a norm behind it scales by s has the gradient over s: products of both do not change.
    """

    def measured() -> Iterator[Member]:
        total: dict[str, Array] = {}
        stored, count = evidence.groups.tracing, 0
        for found in movements(evidence, rng):
            count += 1
            for name, gradient in found.gradients.items():
                value = stored.weight_value(name)
                if value is not None and value.shape == gradient.shape:
                    total[name] = total.get(name, 0.0) + elementwise(value.astype(np.float64), gradient)

        def amounts(part: WeightPart) -> Array | None:
            found = total.get(stored.weights[part.key])
            return None if found is None else found / count

        return members(evidence.weights, np.asarray, amounts)

    return first_known(evidence.groups, aggregate, measured, lambda: norms(evidence.weights))
