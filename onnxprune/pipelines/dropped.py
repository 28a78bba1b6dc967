"""What dropping blocks gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxprune.allocation import BudgetResult
from onnxprune.cost import Cost
from onnxprune.model import Model
from onnxprune.model.blocks import GraphBlock
from onnxprune.proof import Verdict
from onnxprune.recovery import RecoveryReport, StandIn
from onnxprune.rewriting import IoRename, Plan
from onnxprune.runtime import Agreement
from onnxprune.tracing import Groups


@dataclass(frozen=True)
class ScoredBlock:
    """A block, what it costs, and what it is worth.

    Attributes:
        block: the block.
        params: parameters that only it has.
        macs: multiply-accumulates for one sample.
        score: what it is worth, as of when it was last looked at; None where it was not.
        dropped: whether it went.
        why: why it could not go; empty if it could.
    """

    block: GraphBlock
    params: int
    macs: int
    score: float | None = None
    dropped: bool = False
    why: str = ""


@dataclass(frozen=True)
class Dropped:
    """Everything that dropping blocks gave.

    Attributes:
        model: the smaller model.
        plan: what was dropped.
        groups: the traced original.
        blocks: all blocks of the original.
        before: cost of the original.
        after: cost of the smaller model.
        sizes: bytes of the file before and after.
        verdict: the proof before the repair; None if it was not asked for.
        repaired_verdict: that of the repaired model; None if nothing was fitted.
        stand_ins: what stands for the blocks.
        repair: what was done to the layers behind them; None where that was not tried.
        bare: agreement with the original on held-out samples without any repair; None without data.
        judged: the same of `model`.
        io_renames: inputs and outputs that went, or have another name.
        goals: the budgets, and what was reached.
        criterion: what scored the blocks; empty where they were named.
        seconds: wall time by stage.
    """

    model: Model
    plan: Plan
    groups: Groups
    blocks: tuple[ScoredBlock, ...]
    before: Cost
    after: Cost
    sizes: tuple[int, int]
    verdict: Verdict | None = None
    repaired_verdict: Verdict | None = None
    stand_ins: tuple[StandIn, ...] = ()
    repair: RecoveryReport | None = None
    bare: Agreement | None = None
    judged: Agreement | None = None
    io_renames: tuple[IoRename, ...] = ()
    goals: tuple[BudgetResult, ...] = ()
    criterion: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def dropped(self) -> list[ScoredBlock]:
        """The blocks that went."""
        return [scored for scored in self.blocks if scored.dropped]
