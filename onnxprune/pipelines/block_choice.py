"""Which blocks go: the least worth first, looked at again after every one that went where the score depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.allocation import LazyGreedy
from onnxprune.cost import Cost
from onnxprune.criteria import block_influence, block_params
from onnxprune.errors import UsageError
from onnxprune.model import file_size
from onnxprune.model.blocks import GraphBlock
from onnxprune.model.graph import first_output
from onnxprune.model.tensors import byte_size
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.progress import Progress
from onnxprune.tracing import Groups
from onnxprune.typing import Runs

# How far the outputs are from the original's without some blocks.
Divergence = Callable[[Sequence[GraphBlock]], float]


@dataclass(frozen=True)
class BlockCosts:
    """What goes with blocks.

    Attributes:
        groups: the traced original.
        total: what the original costs.
        layers: first output of a contraction -> its multiply-accumulates for one sample.
    """

    groups: Groups
    total: Cost
    layers: Mapping[str, int]

    @staticmethod
    def of(groups: Groups, total: Cost) -> BlockCosts:
        """The costs of a traced model."""
        made: dict[str, list[str]] = {}
        for site, _ in groups.tracing.views:
            made.setdefault(site.name, []).append(first_output(site.node))
        layers: dict[str, int] = {}
        for layer in total.layers:
            layers[made[layer.name].pop(0) if len(made[layer.name]) > 1 else made[layer.name][0]] = layer.macs
        return BlockCosts(groups, total, layers)

    def params(self, block: GraphBlock) -> int:
        """Parameters that go."""
        return block_params(self.groups, block)

    def macs(self, block: GraphBlock) -> int:
        """Multiply-accumulates that go."""
        return sum(self.layers.get(name, 0) for name in block.nodes)

    def size(self, block: GraphBlock) -> int:
        """Bytes of weights that go."""
        stored = self.groups.tracing.model.initializers
        return sum(byte_size(stored[name]) for name in block.weights if name in stored)

    def left(self, kind: str, chosen: Sequence[GraphBlock]) -> float:
        """What is left of a quantity without some blocks, stand-ins aside."""
        whole = file_size(self.groups.model) if kind == "size" else getattr(self.total, kind)
        return float(whole - sum(getattr(self, kind)(block) for block in chosen))


@dataclass(frozen=True)
class BlockChoice:
    """A choice among blocks.

    Attributes:
        groups: the traced original.
        eligible: the blocks that may go.
        criterion: one of `names.BLOCK_CRITERIA`.
        runs: calibration inputs.
        options: how many go.
        divergence: how far the outputs are from the original's without some blocks.
    """

    groups: Groups
    eligible: Sequence[GraphBlock]
    criterion: str
    runs: Runs
    options: DropOptions
    divergence: Divergence

    def run(
        self, costs: BlockCosts, limits: Mapping[str, float], *, progress: Progress
    ) -> tuple[list[GraphBlock], dict[str, float]]:
        """Choose.

        Args:
            costs: what goes with blocks.
            limits: kind of budget -> the most that is allowed.
            progress: is told about every block that is looked at.

        Returns:
            The blocks that go, and name -> what a block is worth, as of when it was last looked at.

        Raises:
            UsageError: the criterion needs data, or there are fewer blocks than are to go.
        """
        if self.criterion in ("divergence", "influence") and not self.runs:
            raise UsageError(f"--criterion {self.criterion} looks at what the model computes", hint="give --data")
        count = self._count()
        chosen: list[GraphBlock] = []
        blocks = {block.name: block for block in self.eligible}
        lazy = LazyGreedy(lambda names: self.divergence([blocks[name] for name in names]), progress)
        scores = lazy.damages if self.criterion == "divergence" else self._scores(costs)
        while (open_blocks := self._open(chosen)) and not self._is_enough(chosen, costs, limits, count):
            names = [block.name for block in open_blocks]
            if self.criterion == "divergence":
                found = lazy.next(names, _least)
            else:
                found = _least({name: scores[name] for name in names})
            assert found is not None
            chosen.append(blocks[found])
        return chosen, scores

    def _count(self) -> int | None:
        """How many blocks go, if that was said."""
        count = self.options.count
        if self.options.ratio is not None:
            count = max(1, round(self.options.ratio * len(self.eligible)))
        if count is not None and count > len(self.eligible):
            raise UsageError(f"{count} blocks are to go, and {len(self.eligible)} may", hint="--list shows them")
        return count

    def _open(self, chosen: Sequence[GraphBlock]) -> list[GraphBlock]:
        """The blocks that can still go; as long as budgets alone say how many, the last one stays."""
        return [block for block in self.eligible if not any(block.overlaps(other) for other in chosen)]

    @staticmethod
    def _is_enough(
        chosen: Sequence[GraphBlock], costs: BlockCosts, limits: Mapping[str, float], count: int | None
    ) -> bool:
        if count is not None:
            return len(chosen) >= count
        return all(costs.left(kind, chosen) <= most for kind, most in limits.items())

    def _scores(self, costs: BlockCosts) -> dict[str, float]:
        """Name -> what a block is worth whatever else goes; the least goes."""
        if self.criterion == "influence":
            return block_influence(self.groups, self.eligible, self.runs)
        if self.criterion == "parameters":
            return {block.name: float(costs.params(block)) for block in self.eligible}
        order = np.random.default_rng(self.options.seed).permutation(len(self.eligible))
        return {block.name: float(place) for block, place in zip(self.eligible, order, strict=True)}


def _least(scores: Mapping[str, float]) -> str:
    """The name of the least score."""
    return min(scores, key=scores.__getitem__)
