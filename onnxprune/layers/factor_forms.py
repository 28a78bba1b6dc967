"""The forms of a product: which axes of a kernel each of its factors has, and how many directions go between them.

A weight W of inputs C, a kernel and outputs O becomes a chain of factors. Orthonormal directions of what enters (of the
channels, and of the first axis of the kernel where the first factor has it), and of the outputs, say which weight the
chain computes: P W Q, with P and Q the projections onto them.

Sources: Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", 2014 (spatial); Kim et
al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", 2016, section 3
(Tucker-2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.names import FACTOR_FORMS
from onnxprune.typing import Array

CHANNEL, SPATIAL, TUCKER = FACTOR_FORMS
_ALL, _NONE, _FIRST, _REST = slice(None), slice(0, 0), slice(0, 1), slice(1, None)
# The axes of the kernel that the factors have, in the order in which they run.
STAGES = {CHANNEL: (_ALL, _NONE), SPATIAL: (_FIRST, _REST), TUCKER: (_NONE, _ALL, _NONE)}
# Whether a form has directions of what enters, and of the outputs.
SIDES = {CHANNEL: (False, True), SPATIAL: (True, False), TUCKER: (True, True)}


@dataclass(frozen=True)
class KernelSizes:
    """The sizes of a weight that is read as float64[D, O], D over its inputs and the axes of its kernel.

    Attributes:
        inputs: C, the inputs without the kernel.
        kernel: the sizes of the kernel; empty for a product.
        outputs: O.
    """

    inputs: int
    kernel: tuple[int, ...]
    outputs: int

    @property
    def elements(self) -> int:
        """How many numbers the weight has."""
        return self.inputs * math.prod(self.kernel) * self.outputs

    def head(self, form: str) -> int:
        """Rows of the weight that the first factor of a form turns into directions, for one place of the others."""
        return self.inputs * math.prod(self.kernel[STAGES[form][0]])

    def factors(self, form: str, ranks: Sequence[int]) -> list[tuple[int, ...]]:
        """The sizes of the factors of a form, each of inputs, kernel and outputs."""
        ends = (self.inputs, *ranks, self.outputs)
        axes = range(len(self.kernel))
        kernels = [tuple(k if a in axes[has] else 1 for a, k in enumerate(self.kernel)) for has in STAGES[form]]
        return [(ends[i], *kernel, ends[i + 1]) for i, kernel in enumerate(kernels)]

    def forms(self) -> list[str]:
        """The forms that differ from each other for these sizes."""
        split = math.prod(self.kernel[_FIRST]) > 1 and math.prod(self.kernel[_REST]) > 1
        within = math.prod(self.kernel) > 1 and self.inputs > 1
        return [CHANNEL, *([SPATIAL] if split else []), *([TUCKER] if within else [])]


@dataclass(frozen=True, eq=False)
class Directions:
    """What stays of a weight.

    Attributes:
        form: one of `FACTOR_FORMS`.
        entering: [head, r], orthonormal columns: directions of what enters; None where the form has none.
        leaving: [O, r], orthonormal columns: directions of the outputs; None where the form has none.
    """

    form: str
    entering: Array | None = field(default=None, repr=False)
    leaving: Array | None = field(default=None, repr=False)

    @property
    def ranks(self) -> tuple[int, ...]:
        """How many directions go between one factor and the next."""
        return tuple(int(basis.shape[1]) for basis in (self.entering, self.leaving) if basis is not None)

    def fits(self, sizes: KernelSizes) -> bool:
        """Whether they are directions of a weight of these sizes."""
        if self.form not in sizes.forms():
            return False
        wanted = (self.entering, sizes.head(self.form)), (self.leaving, sizes.outputs)
        longest = all(basis is None or len(basis) == size for basis, size in wanted)
        return longest and (self.entering is not None or self.ranks[0] <= sizes.elements // sizes.outputs)

    def entered(self, weight: Array) -> Array:
        """A weight [D, O] on the directions of what enters: [r * places, O]."""
        if self.entering is None:
            return weight
        return (self.entering.T @ weight.reshape(len(self.entering), -1)).reshape(-1, weight.shape[1])

    def product(self, rest: Array) -> Array:
        """The weight [D, O] that the chain computes, `rest` behind the first factor as `entered` gives it."""
        made = rest if self.leaving is None else rest @ self.leaving @ self.leaving.T
        if self.entering is None:
            return made
        return (self.entering @ made.reshape(self.entering.shape[1], -1)).reshape(-1, made.shape[1])

    def chain(self, rest: Array, sizes: KernelSizes) -> list[Array]:
        """The factors, each of inputs, kernel and outputs."""
        made = [self.entering, *([rest] if self.leaving is None else [rest @ self.leaving, self.leaving.T])]
        shapes = sizes.factors(self.form, self.ranks)
        return [part.reshape(shape) for part, shape in zip([p for p in made if p is not None], shapes, strict=True)]

    def entered_moment(self, second: Array) -> Array:
        """A second moment [D, D] of the inputs, of the directions of what enters."""
        if self.entering is None:
            return second
        head, rank = self.entering.shape
        places = len(second) // head
        half = np.tensordot(self.entering, second.reshape(head, places, head, places), (0, 0))
        turned = np.tensordot(half, self.entering, (2, 0)).transpose(0, 1, 3, 2)
        return np.ascontiguousarray(turned).reshape(rank * places, rank * places)
