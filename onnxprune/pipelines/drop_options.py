"""What a person may ask `drop` for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from onnxprune.allocation import KINDS
from onnxprune.allocation.amount import Amount, read_amount
from onnxprune.errors import UsageError
from onnxprune.model.block_regions import BLOCK, BRANCH, RUN
from onnxprune.model.blocks import GraphBlock
from onnxprune.names import BLOCK_BUDGETS, BLOCK_CRITERIA, BLOCK_UNITS


@dataclass(frozen=True)
class DropOptions:
    """Which blocks are taken out, and how many.

    Attributes:
        blocks: globs of names of blocks, all of which go.
        count: how many go.
        ratio: the share of the blocks that goes.
        budgets: kind of budget -> what the model may have, as "50%" or "2M".
        criterion: one of `names.BLOCK_CRITERIA`; "auto" is the divergence with data, else the parameters.
        units: one of `names.BLOCK_UNITS`; "auto" is blocks, and runs where there are none.
        keep: globs of names of blocks that stay.
        recover: fit a stand-in and what is behind the blocks, with data.
        add_nodes: what stands for a block may be nodes that were not there.
        allow_io_changes: let inputs and outputs of the blocks go, too.
        seed: of the criterion "random".
    """

    blocks: tuple[str, ...] = ()
    count: int | None = None
    ratio: float | None = None
    budgets: Mapping[str, str | float | Amount] = field(default_factory=dict)
    criterion: str = "auto"
    units: str = "auto"
    keep: tuple[str, ...] = ()
    recover: bool = True
    add_nodes: bool = True
    allow_io_changes: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.criterion, ("auto", *BLOCK_CRITERIA), "criterion of blocks"),
            (self.units, BLOCK_UNITS, "unit"),
        ):
            if value not in known:
                raise UsageError(f"no {what} is called {value!r}", hint=f"known: {', '.join(known)}")
        if unknown := set(self.budgets) - set(BLOCK_BUDGETS):
            raise UsageError(f"{min(unknown)} is no budget of drop", hint=f"known: {', '.join(BLOCK_BUDGETS)}")
        if self.count is not None and self.count < 1:
            raise UsageError(f"{self.count} is no number of blocks", hint="give 1 or more")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UsageError(f"{self.ratio:g} is no share of the blocks", hint="write 0.25 or 25%")
        given = [bool(self.blocks), self.count is not None, self.ratio is not None, bool(self.budgets)]
        if sum(given) > 1:
            raise UsageError(
                "several options say how much is dropped", hint="give one of blocks, count, ratio, budgets"
            )
        object.__setattr__(self, "budgets", {k: read_amount(k, KINDS[k].unit, v) for k, v in self.budgets.items()})

    @property
    def is_open(self) -> bool:
        """Whether nothing says how much is dropped."""
        return not self.blocks and self.count is None and self.ratio is None and not self.budgets

    def as_json(self) -> dict[str, object]:
        """Plain data for a plan."""
        chosen = ("blocks", "count", "ratio", "criterion", "units", "keep")
        names = (*chosen, "recover", "add_nodes", "allow_io_changes", "seed")
        plain = {name: getattr(self, name) for name in names}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        return {"verb": "drop", **plain, "budgets": {name: str(value) for name, value in self.budgets.items()}}

    def eligible(self, blocks: Sequence[GraphBlock]) -> list[GraphBlock]:
        """The blocks that may be chosen.

        Args:
            blocks: those of the model.

        Returns:
            The blocks of the units that are asked for, less those that stay; of those that go together, the first.
        """
        kinds = {"blocks": (BLOCK,), "branches": (BRANCH,), "runs": (RUN,), "all": (BLOCK, BRANCH, RUN)}
        units = self.units
        if units == "auto":
            units = "blocks" if any(block.kind == BLOCK for block in blocks) else "runs"
        whole = [block for block in blocks if block.kind in kinds[units]]
        if units == "branches":  # a block of one branch is that branch
            whole = [b for b in blocks if b.kind == BRANCH or (b.kind == BLOCK and not _has_branches(b, blocks))]
        leading = [b for i, b in enumerate(whole) if not any(b.name in other.twins for other in whole[:i])]
        by_name = {block.name: block for block in blocks}
        return [b for b in leading if not any(map(self.why_kept, (b, *(by_name[name] for name in b.twins))))]

    def why_kept(self, block: GraphBlock) -> str:
        """Why a block stays whatever it is worth; empty if it may go."""
        if any(fnmatchcase(block.name, glob) for glob in self.keep):
            return "--keep"
        if block.problem:
            return block.problem
        if block.changes_io and not self.allow_io_changes:
            return f"the graph hands out {block.outputs[0]!r} from inside of it (see --allow-io-changes)"
        return ""


def _has_branches(block: GraphBlock, blocks: Sequence[GraphBlock]) -> bool:
    return any(other.kind == BRANCH and set(other.nodes) < set(block.nodes) for other in blocks)


def named_blocks(options: DropOptions, blocks: Sequence[GraphBlock]) -> list[GraphBlock]:
    """Find the blocks that globs name, whatever they are: of a block and its branches, the block.

    Args:
        options: with the globs.
        blocks: those of the model.

    Returns:
        The blocks, in graph order.

    Raises:
        UsageError: a glob names none, or one that must stay.
    """
    found: list[GraphBlock] = []
    for glob in options.blocks:
        matching = [block for block in blocks if fnmatchcase(block.name, glob)]
        if not matching:
            some = ", ".join(block.name for block in blocks[:3])
            raise UsageError(
                f"no block is called {glob!r}", hint=f"there are {some}, ...; --list shows all" if some else ""
            )
        for block in matching:
            if why := options.why_kept(block):
                if glob == block.name:
                    raise UsageError(f"block {block.name!r} must stay: {why}")
            elif not any(block.overlaps(other) for other in found):
                found.append(block)
    return sorted(found, key=blocks.index)
