"""Options that say which blocks are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import AMOUNT, DATA, UNITS, Option, group, titled
from onnxprune.cli.types import LARGEST, Ratio
from onnxprune.names import BLOCK_BUDGETS, BLOCK_CRITERIA, BLOCK_UNITS, BUDGETS

if TYPE_CHECKING:
    from onnxprune.pipelines.drop_options import DropOptions

_AMOUNT: tuple[Option, ...] = (
    click.option("--blocks", metavar="GLOB,...", help="Drop the blocks of these names; --list shows all names."),
    click.option("--count", metavar="N", type=click.IntRange(1, LARGEST), default=None, help="Drop so many blocks."),
    click.option("-r", "--ratio", metavar="RATIO", type=Ratio(), default=None, help="Drop this share of the blocks."),
    *(
        click.option(f"--{kind}", metavar="AMOUNT", default=None, help=f"Budget on {BUDGETS[kind]}.")
        for kind in BLOCK_BUDGETS
    ),
)

_WHICH: tuple[Option, ...] = (
    click.option(
        "--criterion",
        type=click.Choice(["auto", *BLOCK_CRITERIA]),
        default="auto",
        show_default=True,
        help="What makes a block worth keeping: how far the outputs are from the original's without it, after the"
        " repair; how much it turns the stream; its parameters. auto is divergence with --data, else parameters.",
    ),
    click.option(
        "--units",
        type=click.Choice(BLOCK_UNITS),
        default="auto",
        show_default=True,
        help="What counts as a block: a whole one, its branches (as attention alone), runs of layers without a skip;"
        " auto is blocks, or runs where there are none.",
    ),
    click.option("--keep", metavar="GLOB", multiple=True, help="Leave blocks alone; may be repeated."),
    click.option(
        "--allow-io-changes",
        is_flag=True,
        help="Let inputs and outputs of dropped blocks go too, as their caches of keys and values.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For --criterion random."),
)

_FIT: tuple[Option, ...] = (
    click.option(
        "--recover/--no-recover",
        default=True,
        help="With --data: fit what stands for a block, and the layers behind it, by default.",
    ),
    click.option(
        "--add-nodes/--no-add-nodes",
        default=True,
        help="What stands for a block may be a product or a factor that was not there, by default.",
    ),
)


def _options(blocks: str | None, **given: Any) -> DropOptions:
    from onnxprune.pipelines.drop_options import DropOptions

    budgets = {kind: given.pop(kind) for kind in BLOCK_BUDGETS}
    names = tuple(part.strip() for part in (blocks or "").split(",") if part.strip())
    return DropOptions(blocks=names, budgets={k: v for k, v in budgets.items() if v is not None}, **given)


# Which blocks go; the command gets `options`.
dropping = group("options", _options, titled(AMOUNT, *_AMOUNT), titled(UNITS, *_WHICH), titled(DATA, *_FIT))
