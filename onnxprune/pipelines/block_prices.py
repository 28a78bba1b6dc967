"""Which blocks go where blocks and units compete: both are priced by what the outputs lose for what is saved.

Units are scored once, on the original. A block is worth what the outputs lose without it, after a repair that adds no
node, beside the blocks that went before it: the damage of the block that would go next is measured again after every
block. The allocator then has both before it, and the block that is cheapest for what it saves goes, until units alone
are cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from onnxprune.allocation import BudgetFitter, LazyGreedy, Options, PricedPart, cheapest_part
from onnxprune.criteria import output_error
from onnxprune.model.blocks import GraphBlock
from onnxprune.pipelines import iterative
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.drop import Dropping
from onnxprune.rewriting import bypassed
from onnxprune.runtime.bench import Place
from onnxprune.typing import Array

LATENCY = "latency"
# Damage of a block without which the outputs are no numbers.
RUINED = 1e30


@dataclass(frozen=True, eq=False)
class BlockPrices:
    """Blocks and units before the allocator.

    Attributes:
        work: the traced original, its blocks and inputs.
        scores: float64[classes], what the outputs lose with units.
        options: the budgets, and which units may go.
        fitter: the budgets on this machine.
    """

    work: Dropping
    scores: Array
    options: Options
    fitter: BudgetFitter

    @staticmethod
    def of(work: Dropping, options: Options, place: Place | None, clock: Clock) -> BlockPrices:
        """Those of a traced model, whose units are scored on its inputs."""
        with clock("scoring"):
            scores = iterative.first_scores(work.groups, options, work.runs, clock.progress)
            return BlockPrices(
                work, scores, options, BudgetFitter.of(work.groups, scores, options, place, clock.progress)
            )

    def cheapest(self) -> list[GraphBlock]:
        """The blocks that go, in graph order: the cheapest first, until units alone are cheaper."""
        blocks = {block.name: block for block in self.work.blocks}
        gone: list[GraphBlock] = []
        lazy = LazyGreedy(lambda names: self.damage([blocks[name] for name in names]), self.work.clock.progress)

        def pick(prices: Mapping[str, float]) -> str | None:
            parts = [self._part(blocks[name], max(0.0, price)) for name, price in prices.items()]
            found = self._cheapest([*parts, *(self._part(block, 0.0, gone=True) for block in gone)])
            return None if found is None else list(prices)[found]

        while (found := lazy.next([block.name for block in self._open(gone)], pick)) is not None:
            gone.append(blocks[found])
            if self._is_quick(gone):
                break
        return sorted(gone, key=self.work.blocks.index)

    def damage(self, chosen: Sequence[GraphBlock]) -> float:
        """What the outputs lose without some blocks, in the terms of the scores."""
        found = output_error(self.work.groups, self.work.without(chosen), self.work.judges)
        return found if np.isfinite(found) else RUINED

    def _is_quick(self, gone: Sequence[GraphBlock]) -> bool:
        """Whether a budget on time, where it is the only one, is measured to hold without some blocks.

        What a whole block saves is known from tables alone, and these know less of it than of some units.
        """
        timer, limits = self.fitter.timer, self.options.budgets
        if timer is None or [*limits] != [LATENCY]:
            return False
        small, _ = self.work.finished(bypassed(self.work.groups, sorted(gone, key=self.work.blocks.index)), gone)
        return timer.seconds(small) <= limits[LATENCY].limit(timer.before)

    def _cheapest(self, parts: Sequence[PricedPart]) -> int | None:
        given: dict[str, Any] = {"kinds": self.fitter.kinds, "multiples": self.fitter.rounded_to}
        return cheapest_part(self.work.groups, self.scores, self.options, parts, **given)

    def _open(self, chosen: Sequence[GraphBlock]) -> list[GraphBlock]:
        """The blocks that can still go; of those that overlap, the first."""
        found: list[GraphBlock] = []
        for block in self.work.options.eligible(self.work.blocks):
            if self._may_go(block) and not any(block.overlaps(other) for other in (*chosen, *found)):
                found.append(block)
        return found

    def _may_go(self, block: GraphBlock) -> bool:
        """Whether `keep` names neither the block nor a weight or group inside."""
        groups = self.work.groups.groups
        names = (block.name, *block.weights, *(groups[i].name for i in self._within(block)))
        return not any(fnmatchcase(name, glob) for name in names for glob in self.options.keep)

    def _within(self, block: GraphBlock) -> tuple[int, ...]:
        """Numbers of the groups whose weights are all inside a block."""
        weights = set(block.weights)
        groups = enumerate(self.work.groups.groups)
        return tuple(i for i, group in groups if {member.tensor for member in group.members} <= weights)

    def _part(self, block: GraphBlock, damage: float, *, gone: bool = False) -> PricedPart:
        return PricedPart(frozenset({*block.nodes, *block.weights}), damage, self._within(block), gone)
