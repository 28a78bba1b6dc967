"""The block that goes next, where what is lost without a block depends on those that went before it.

What a block costs seldom falls when others go. So a price that was measured with fewer blocks gone is taken as a bound
from below, and only the block that would go by such prices is measured again: Minoux, "Accelerated greedy algorithms
for maximizing submodular set functions", 1978.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from onnxprune.progress import Progress, WorkPart

# The name of the block that goes by some prices, None where none does.
Pick = Callable[[Mapping[str, float]], str | None]


class LazyGreedy:
    """Blocks that go one after the other, with no more measurements than the choice needs.

    Attributes:
        gone: the names of those that went, in this order.
        damages: name -> damage without a block and those that went before, as of when it was last measured.
    """

    def __init__(self, damage: Callable[[Sequence[str]], float], progress: Progress) -> None:
        """Prepare.

        Args:
            damage: damage without some blocks, given their names in the order in which they went.
            progress: is told about every block that is looked at.
        """
        self.gone: list[str] = []
        self.damages: dict[str, float] = {}
        self._damage, self._progress = damage, progress
        self._lost = 0.0
        self._prices: dict[str, float] = {}

    def next(self, names: Collection[str], pick: Pick) -> str | None:
        """Choose the block that goes next.

        Args:
            names: of those that can.
            pick: the choice by prices: what the damage grows by without a block.

        Returns:
            Its name; None where `pick` takes none.
        """
        fresh = [name for name in names if name not in self._prices]
        for number, name in enumerate(fresh, 1):
            self._progress(WorkPart.of("looking at block", number, len(fresh)))
            self._measure(name)
        prices = {name: self._prices[name] for name in names}
        while (found := pick(prices)) is not None and found not in fresh:
            self._progress(f"looking at block {found} again, {len(self.gone)} dropped")
            fresh.append(found)
            prices[found] = self._measure(found)
        if found is not None:
            self.gone.append(found)
            self._lost = self.damages[found]
        return found

    def _measure(self, name: str) -> float:
        self.damages[name] = self._damage([*self.gone, name])
        self._prices[name] = self.damages[name] - self._lost
        return self._prices[name]
