"""The products that a weight may become: forms and ranks, what each costs, and the energy that it loses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.allocation.ranks import FactorOption, LowRankOptions, multiple_for
from onnxprune.layers.factor_forms import CHANNEL, SIDES, STAGES, Directions
from onnxprune.layers.low_rank import TurnedWeight, entering_basis, output_energy, spectrum
from onnxprune.model.tensors import item_bits
from onnxprune.names import FACTOR_FORMS
from onnxprune.rewriting.factorise import FactorisableWeight
from onnxprune.typing import Array

# How many numbers of directions of what enters are tried: each costs a fit.
ENTERING = 8


@dataclass(frozen=True, eq=False)
class WeightEnergy:
    """A weight, and what its layer reads.

    Attributes:
        weight: the weight.
        matrix: float64[D, O], its numbers.
        second: the second moment by which directions are found; None where they are found by the weight alone.
        fits: whether what is behind the directions of what enters is fitted.
    """

    weight: FactorisableWeight
    matrix: Array
    second: Array | None
    fits: bool

    @cached_property
    def turned(self) -> TurnedWeight:
        """The weight and its moments, as they are."""
        cross = self.matrix if self.second is None else self.second @ self.matrix
        return TurnedWeight(self.matrix, self.second, cross)


def names_of(weight: FactorisableWeight) -> tuple[str, str]:
    """What globs of weights match: its name, and that of its node."""
    return weight.name, weight.view.name


def factor_options(of: WeightEnergy, options: LowRankOptions, macs: float) -> list[FactorOption]:
    """Find the products that a weight may become.

    Args:
        of: the weight.
        options: which forms and ranks are allowed.
        macs: multiply-accumulates of its node.

    Returns:
        Those with fewer elements than the weight.
    """
    rank = options.rank_of(*names_of(of.weight))
    forms = options.forms or (FACTOR_FORMS if rank is None else (CHANNEL,))
    known, bits, found = of.weight.kernel_sizes, item_bits(of.weight.view.static.dtypes[of.weight.name]), []
    for form in (f for f in known.forms() if f in forms):
        grow = _growth(of.weight, form)
        for ranks, lost in _ranked(of, form, rank, options.round_to):
            parts = [math.prod(shape) for shape in known.factors(form, ranks)]
            if sum(parts) < known.elements:
                runs = macs / known.elements * sum(p * g for p, g in zip(parts, grow, strict=True))
                costs = {"params": float(sum(parts)), "macs": runs, "size": sum(parts) * bits / 8}
                found.append(FactorOption(form, ranks, costs, lost))
    return found


def _growth(weight: FactorisableWeight, form: str) -> list[float]:
    """At how many places every factor is applied, for each place of the output."""
    shapes, layer, stages = weight.view.static.shapes, weight.layer, STAGES[form]
    count = len(weight.kernel_sizes.kernel)
    entering, leaving = shapes[layer.input][-count:], shapes[layer.node.output[0]][-count:]
    axes = [n / max(1, m) for n, m in zip(entering, leaving, strict=True)] if count else []
    return [math.prod(a for later in stages[i + 1 :] for a in axes[later]) for i in range(len(stages))]


def _ranked(
    of: WeightEnergy, form: str, rank: int | None, round_to: int | None
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Ranks of a form, and the share of the energy that is lost with them."""
    sizes, (enters, leaves) = of.weight.kernel_sizes, SIDES[form]
    largest = (sizes.elements - 1) // sum(math.prod(shape) for shape in sizes.factors(form, [1] * (enters + leaves)))
    total = max(output_energy(of.matrix, of.second), 1e-300)
    counts = _multiples(min(largest, sizes.head(form) - 1), rank, round_to) if enters else []
    for start, turned in _starts(of, form, counts) if enters else [((), of.turned)]:
        rest = turned.fitted() if enters and of.fits else turned.weight
        missing = max(0.0, total - turned.explained(rest)) if enters else 0.0
        if not leaves:
            yield start, missing / total
            continue
        found = spectrum(rest, turned.second)
        lost = (missing + found.lost() * found.energy.sum()) / total
        for last in _multiples(min(largest, sizes.outputs - 1) if enters else largest, rank, round_to):
            yield (*start, last), float(lost[min(last, len(lost) - 1)])


def _starts(of: WeightEnergy, form: str, counts: Sequence[int]) -> Iterator[tuple[tuple[int], TurnedWeight]]:
    """The weight on the first directions of what enters, as many as each of `counts` says, a few counts of all."""
    head = of.weight.kernel_sizes.head(form)
    basis = entering_basis(of.matrix, of.second if of.fits else None, head)
    few = {round(x) for x in np.linspace(0, len(counts) - 1, min(len(counts), ENTERING))}
    tried = sorted(count for count in (counts[i] for i in few) if count <= basis.shape[1])
    if tried:
        turned, places = of.turned.on(Directions(form, basis[:, : tried[-1]])), len(of.matrix) // head
        yield from (((count,), turned.corner(count * places)) for count in tried)


def _multiples(largest: int, rank: int | None, round_to: int | None) -> list[int]:
    """The ranks to choose from: the one that is asked for, or multiples."""
    if rank is not None:
        return [rank] if rank <= largest else []
    multiple = multiple_for(largest, round_to)
    return list(range(multiple, largest + 1, multiple))
