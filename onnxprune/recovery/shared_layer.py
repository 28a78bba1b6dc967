"""Weights that several nodes multiply with: one fit to the rows of all of them, as in heads of a detector's levels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from onnxprune.layers import Parameters
from onnxprune.recovery import fits
from onnxprune.recovery.targets import KeptMask, LayerFit, LayerTarget, LinearFit, MatrixTarget, Target
from onnxprune.rewriting import Removal
from onnxprune.runtime import PairMoments
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class SharedTarget(MatrixTarget):
    """Layers of one weight, which stands where the last of them stands.

    Attributes:
        members: the layers, in graph order.
    """

    members: tuple[LayerTarget, ...]

    @classmethod
    def of(cls, members: Sequence[LayerTarget], removal: Removal, parameters: Parameters) -> Self | None:
        """The layers as one target, where they alone read the weight, in the same way.

        Args:
            members: layers that read it.
            removal: what was removed.
            parameters: the pruned model.

        Returns:
            None as long as other nodes read the weight, and where it is another matrix to some of the layers.
        """
        last = members[-1]
        if not parameters.is_own(last.node.input[last.new.weight], users=len(members)):
            return None
        matrices = [m.new.as_matrix(m.present(parameters)) * m.new.scale for m in members]
        kept = [KeptMask.of(removal, m.view, m.old) for m in members]
        alike = all(np.array_equal(matrices[0], matrix) for matrix in matrices) and all(map(kept[0].equals, kept))
        # A stream that waits for a layer between two members cannot be added to the rows of the first.
        plain = (replace(m, downstream=m.downstream and replace(m.downstream, residual="")) for m in members)
        return cls(last.view, last.node, tuple(plain)) if alike else None

    @property
    def tapped_tensors(self) -> tuple[list[str], list[str]]:
        """Those of all members."""
        olds, news = zip(*(m.tapped_tensors for m in self.members), strict=True)
        return [name for names in olds for name in names], [name for names in news for name in names]

    @property
    def outputs(self) -> list[str]:
        """Those of all members."""
        return [m.node.output[0] for m in self.members]

    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """The weight, and the bias where they share that, too."""
        parts = tuple(m.task(removal, parameters, method) for m in self.members)
        first, bias = parts[0], self._bias(parameters, parts[0].sliced.shape[0] * parts[0].sliced.shape[2])
        return SharedFit(
            method=method,
            parameters=parameters,
            sliced=first.sliced,
            full=first.full,
            shifted=bool(bias),
            groups=tuple(dict.fromkeys(name for part in parts for name in part.groups)),
            parts=parts,
            bias=bias,
        )

    def _bias(self, parameters: Parameters, outputs: int) -> str:
        """The bias that all members add, and nobody else; empty if there is none."""
        found = [parameters.bias(m.new, outputs, users=len(self.members)) for m in self.members]
        names = {"" if at is None else at[0].input[at[1]] for at in found}
        return names.pop() if len(names) == 1 else ""


def in_order(found: Sequence[Target], parameters: Parameters) -> list[Target]:
    """Put shared layers behind all targets that their inputs depend on, and before all that depend on them.

    Args:
        found: targets in graph order.
        parameters: the pruned model.

    Returns:
        The targets, without shared layers for which there is no such place, as where a block is repeated.
    """
    ordered = list(found)
    for shared in (target for target in found if isinstance(target, SharedTarget)):
        ordered.remove(shared)
        made = parameters.ancestors([m.new.input for m in shared.members])
        behind = parameters.descendants(shared.outputs)
        before, after = ([not known.isdisjoint(t.outputs) for t in ordered] for known in (made, behind))
        if any(map(operator.and_, before, after)):
            continue
        end = max((i + 1 for i, is_before in enumerate(before) if is_before), default=0)
        moved = [t for t, is_after in zip(ordered[:end], after, strict=False) if is_after]
        ordered[:end] = [*(t for t in ordered[:end] if t not in moved), shared, *moved]
    return ordered


@dataclass(frozen=True, eq=False, kw_only=True)
class SharedFit(LayerFit):
    """The weight that several layers read.

    Attributes:
        parts: the fit of each layer by itself.
        bias: what they add; empty for nothing that they share.
    """

    parts: tuple[LinearFit, ...]
    bias: str

    def rows(self, olds: Sequence[Array], news: Sequence[Array], most: int, rng: np.random.Generator) -> fits.Rows:
        """Rows of every layer, as many of each."""
        found, start, begin = [], 0, 0
        for part in self.parts:
            old, new = (len(names) for names in part.target.tapped_tensors)
            mine = olds[start : start + old], news[begin : begin + new]
            found.append(part.rows(*mine, max(1, most // len(self.parts)), rng))
            start, begin = start + old, begin + new
        if any(rows.bounds is None for rows in found):
            found = [replace(rows, bounds=None) for rows in found]
        return fits.Rows.joined(found)

    def channels(self, rows: fits.Rows) -> PairMoments | None:
        """Moments of the layers' channels."""
        return self.parts[0].channels(rows)

    def write(self, fitted: fits.Fitted, moments: PairMoments | None = None) -> None:
        """Store the weight, and shift the bias."""
        self.parts[0].write((fitted[0], np.zeros_like(fitted[1])), moments)
        if self.bias:
            value = self.parameters.value(self.bias).astype(np.float64)
            self.parameters.store(self.bias, value + fitted[1].reshape(-1))
