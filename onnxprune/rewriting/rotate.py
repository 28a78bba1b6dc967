"""Units of a linear group turned into directions: the same function, with other weights before and behind.

Let h be what stands between contractions with nothing nonlinear in between, and Q orthogonal. With weights that make
hQ in place of h, and Q'W in place of every W that reads it, the outputs stay: hQ Q'W = hW. SliceGPT (Ashkboos et al.,
2024, section 3) takes the principal components of h for Q, and removes the last of them. Factors for each unit behind a
norm move into the W first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.rewriting.linear_groups import why_not_linear
from onnxprune.rewriting.mixed_units import OTHER_MODEL, group_of_step, with_mixed_units
from onnxprune.rewriting.plan_json import ROTATE, expect, packed_basis, unpacked_basis
from onnxprune.rewriting.unit_scales import scales, with_own_readers
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class RotateStep:
    """The directions that take the places of a group's units.

    Attributes:
        group: its name.
        bases: float32[n, n] for every cell of n units; column j is the direction that comes to stand at place j.
    """

    group: str
    bases: tuple[Array, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        bases = [packed_basis(basis) for basis in self.bases]
        return {"kind": ROTATE, "group": self.group, "units": [len(basis) for basis in self.bases], "bases": bases}

    @staticmethod
    def from_json(raw: Mapping[str, Any], where: str) -> RotateStep:
        """Read a step.

        Raises:
            UsageError: it is none; the first offence is named by its place.
        """
        expect(isinstance(raw.get("group"), str), "must be a text", f"{where}.group")
        units, bases = raw.get("units"), raw.get("bases")
        are_sizes = isinstance(units, list) and units and all(type(n) is int and n > 0 for n in units)
        expect(bool(are_sizes), "must be a list of positive integers", f"{where}.units")
        expect(isinstance(bases, list) and len(bases) == len(units or ()), "must be one a cell", f"{where}.bases")
        pairs = enumerate(zip(bases or (), units or (), strict=True))
        read = (unpacked_basis(text, n, n, f"{where}.bases[{i}]") for i, (text, n) in pairs)
        return RotateStep(raw["group"], tuple(read))


def with_rotation(groups: Groups, steps: Sequence[RotateStep]) -> Model:
    """Turn the units of some groups into directions.

    Args:
        groups: the traced model.
        steps: the directions.

    Returns:
        A model that computes the same, to rounding.

    Raises:
        UsageError: a group is not there, has other units, or is not linear.
    """
    chosen = [group_of_step(groups, step.group, sum(map(len, step.bases))) for step in steps]
    groups = with_own_readers(groups, chosen)
    mixed, scaled, plain = [], dict[str, tuple[int, Array]](), list[str]()
    for step in steps:
        group = group_of_step(groups, step.group, sum(map(len, step.bases)))
        if [len(cell) for cell in group.cells] != [len(basis) for basis in step.bases]:
            raise UsageError(f"the plan does not fit: group {step.group!r} has other rows", hint=OTHER_MODEL)
        if why := why_not_linear(groups, group):
            raise UsageError(f"the units of group {step.group!r} cannot be rotated: {why}", hint=OTHER_MODEL)
        mixed.append((group, [partial(_turned, nearest_orthogonal(basis)) for basis in step.bases]))
        for scale in scales(groups, group):
            factors = groups.model.array(scale.name).astype(np.float64)
            scaled.update((reader.weight, (reader.axis, factors)) for reader in scale.readers)
            plain.append(scale.name)
    return with_mixed_units(groups, mixed, scaled, plain)


def nearest_orthogonal(basis: Array) -> Array:
    """The orthogonal matrix next to one that was rounded: the first factor of its polar decomposition, float64."""
    left, _, right = np.linalg.svd(basis.astype(np.float64))
    return np.asarray(left @ right)


def _turned(basis: Array, rows: Array) -> Array:
    return np.tensordot(basis, rows, axes=(0, 0))


def rotatable_groups(groups: Groups) -> dict[str, Group]:
    """Find the linear groups.

    Args:
        groups: the traced model.

    Returns:
        Group by name, of those with more than one unit.
    """
    return {g.name: g for g in groups.groups if g.units > 1 and not why_not_linear(groups, g)}
