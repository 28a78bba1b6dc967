"""Options that say which weights become products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import AMOUNT, DATA, UNITS, Option, group, titled
from onnxprune.cli.types import LARGEST, Pair, Ratio
from onnxprune.names import BUDGETS, FACTOR_FORMS, LOW_RANK_METHODS, RANK_BUDGETS

if TYPE_CHECKING:
    from onnxprune.allocation.ranks import LowRankOptions

_AMOUNT: tuple[Option, ...] = (
    click.option(
        "-r",
        "--ratio",
        metavar="RATIO",
        type=Ratio(),
        default=None,
        help="Share of the elements of all weights of contractions that goes, as weights become products: 0.3 or 30%.",
    ),
    click.option(
        "--rank",
        "ranks",
        metavar="GLOB=RANK",
        type=Pair(click.IntRange(1, LARGEST)),
        multiple=True,
        help="The rank of the weights (or nodes) that match; may be repeated, the last match wins.",
    ),
    *(
        click.option(f"--{kind}", metavar="AMOUNT", default=None, help=f"Budget on {BUDGETS[kind]}.")
        for kind in RANK_BUDGETS
    ),
    click.option(
        "--round-to",
        metavar="N",
        type=click.IntRange(1, LARGEST),
        default=None,
        help="Take ranks that are multiples of N; of 16 by default, of less for narrow layers.",
    ),
)
_WHICH: tuple[Option, ...] = (
    click.option("--keep", metavar="GLOB", multiple=True, help="Leave weights (or nodes) alone; may be repeated."),
    click.option("--only", metavar="GLOB", multiple=True, help="Change only these; may be repeated."),
    click.option(
        "--form",
        "forms",
        type=click.Choice(FACTOR_FORMS),
        multiple=True,
        help="What a product may be: the kernel, then 1x1 (channel); one axis of the kernel, then the others (spatial);"
        " the kernel between two 1x1 (tucker). May be repeated; all by default, channel for --rank.",
    ),
    click.option(
        "--method",
        type=click.Choice(LOW_RANK_METHODS),
        default="auto",
        show_default=True,
        help="How the directions that stay are found: by the second moments of what layers read, by its sizes alone, or"
        " by the weights alone; auto is whitened with --data, else plain.",
    ),
    click.option(
        "--allow-slower", is_flag=True, help="Take products that are measured to be slower than the weight, too."
    ),
)
_FIT: tuple[Option, ...] = (
    click.option(
        "--recover/--no-recover",
        default=True,
        help="With --data: fit the products to the outputs that the original gave, by default.",
    ),
)


def _options(ratio: float | None, ranks: tuple[tuple[str, int], ...], **chosen: Any) -> LowRankOptions | None:
    """The options; None where nothing asks for products."""
    budgets = {kind: chosen.pop(kind) for kind in RANK_BUDGETS}
    if ratio is None and not ranks and not any(budgets.values()):
        return None
    from onnxprune.allocation.ranks import LowRankOptions

    return LowRankOptions(ratio=ratio, ranks=dict(ranks), **budgets, **chosen)


_TITLED = (titled(AMOUNT, *_AMOUNT), titled(UNITS, *_WHICH), titled(DATA, *_FIT))
# Which weights become products; the command gets `low_rank`, None where nothing asks for them.
low_rank = group("low_rank", _options, *_TITLED)
