"""Principal components of what stands between linear layers, from calibration inputs.

Of everything h that reads the units of a group, the second moments C = E[hh'] are added, each as a share of its trace,
so that every reader counts alike. The eigenvectors of the sum, largest eigenvalue first, are the directions whose last
ones may go with the least error over all readers together (SliceGPT, Ashkboos et al., 2024, equation 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.model.run_order import tappable
from onnxprune.rewriting import RotateStep, cell_places, fibres, unit_places
from onnxprune.runtime import ActivationReader, routes_of
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array, Runs

# Rows of one reader that are looked at, over all runs.
ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class UnitRead:
    """An axis of an activation that some node sums over, with units of a group.

    Attributes:
        tensor: the activation.
        axis: its axis.
        others: the axes along which the units differ from row to row.
        units: int[rows, size]: the unit at every position, -1 for none, in every row.
    """

    tensor: str
    axis: int
    others: tuple[int, ...]
    units: Array

    def rows(self, value: Array) -> Array | None:
        """The activation as [rows of `units`, n, size]; None where its sizes are not those of the trace."""
        turned = np.moveaxis(value, (*self.others, self.axis), (*range(len(self.others)), -1))
        sizes = turned.shape[: len(self.others)]
        if value.shape[self.axis] != self.units.shape[1] or int(np.prod(sizes)) != len(self.units):
            return None
        return turned.reshape(len(self.units), -1, self.units.shape[1])


def unit_reads_of(groups: Groups, group: Group) -> Iterator[UnitRead]:
    """Find where the units of a group are read.

    Args:
        groups: the traced model.
        group: one of its linear groups.

    Yields:
        Each axis of an activation once, in graph order.
    """
    met: set[tuple[str, int]] = set()
    for view, _ in groups.tracing.views:
        for read in view.masked_axes:
            name = view.node.input[read.slot]
            labels = view.labels(read.slot)[read.axis]
            units = unit_places(groups, group, labels)
            if (units >= 0).any() and not view.constant[read.slot] and (name, read.axis) not in met:
                met.add((name, read.axis))
                yield UnitRead(name, read.axis, *fibres(units, read.axis, len(view.shape(read.slot))))


def principal_axes(groups: Groups, chosen: Sequence[Group], runs: Runs) -> dict[str, RotateStep]:
    """Find the principal components of some groups.

    Args:
        groups: the traced model.
        chosen: linear groups of it.
        runs: calibration inputs.

    Returns:
        Name of a group -> its directions, those with the largest share of the squares first; without groups that no run
        reaches, and those of whose values some are infinite or no numbers.
    """
    model = groups.tracing.model
    routes = routes_of(model, runs)
    taps = tappable(model, routes)
    reads = [(group, read) for group in chosen for read in unit_reads_of(groups, group) if read.tensor in taps]
    order = {o: i for i, node in enumerate(model.proto.graph.node) for o in node.output}
    tensors = sorted({read.tensor for _, read in reads}, key=lambda t: order.get(t, -1))
    sums = {group.name: [np.zeros((len(cell), len(cell))) for cell in group.cells] for group in chosen}
    with ActivationReader(model, runs, tensors, routes=routes) as walk:
        for tensor in tensors:
            here = [(group, read) for group, read in reads if read.tensor == tensor]
            for group, moments in zip((g for g, _ in here), _moments(here, walk, len(runs)), strict=True):
                for total, moment in zip(sums[group.name], moments, strict=True):
                    total += moment / max(float(np.trace(moment)), 1e-30)
    usable = {name: cells for name, cells in sums.items() if all(np.isfinite(c).all() and c.any() for c in cells)}
    return {name: RotateStep(name, tuple(map(_components, cells))) for name, cells in usable.items()}


def _moments(here: Sequence[tuple[Group, UnitRead]], walk: ActivationReader, runs: int) -> list[list[Array]]:
    """Second moments of every read of one tensor, float64[n, n] by cell."""
    rng, (tensor,) = np.random.default_rng(0), {read.tensor for _, read in here}
    found = [[np.zeros((len(cell), len(cell))) for cell in group.cells] for group, _ in here]
    for visits in walk.visits([tensor]):
        for values in visits:
            for (group, read), moments in zip(here, found, strict=True):
                rows = read.rows(values[tensor])
                for units, own in zip(read.units, () if rows is None else rows, strict=False):
                    most = max(1, ROWS // (runs * len(visits)))
                    own = own if len(own) <= most else own[np.sort(rng.permutation(len(own))[:most])]
                    for moment, places in zip(moments, cell_places(units, group), strict=True):
                        taken = own[:, places.T].reshape(-1, len(places)).astype(np.float64)
                        moment += taken.T @ taken
    return found


def _components(moment: Array) -> Array:
    """Eigenvectors as float32 columns, the largest eigenvalue first, the largest entry of each positive."""
    vectors = np.linalg.eigh(moment)[1][:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))]
    return np.asarray(vectors * np.where(largest < 0, -1.0, 1.0), np.float32)
