"""Options that say which weights become zero."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import AMOUNT, DATA, OPTIONS, UNITS, Option, group, titled
from onnxprune.cli.types import Known, Pair, Ratio
from onnxprune.errors import UsageError
from onnxprune.names import COMPARISONS, MASKINGS, STORAGES

if TYPE_CHECKING:
    from onnxprune.sparsity import SparsifyOptions

_AMOUNT: tuple[Option, ...] = (
    click.option(
        "-s",
        "--sparsity",
        metavar="RATIO",
        type=Ratio(),
        default=None,
        help="Share of the elements of every weight that become zero: 0.5 or 50%; half if nothing says how many.",
    ),
    click.option(
        "--params",
        metavar="AMOUNT",
        help="Most parameters that are not zero, in place of a share: 50% or 2M.",
    ),
    click.option(
        "--size",
        metavar="AMOUNT",
        help="Most bytes of the file, 50% or 20MB; with --storage sparse or auto.",
    ),
    click.option(
        "--per",
        type=click.Choice(COMPARISONS),
        default="output",
        show_default=True,
        help="What elements are compared with: those of one output, of the layer, or of all layers.",
    ),
    click.option(
        "--ratio",
        "--ratio-for",
        "ratios",
        metavar="GLOB=RATIO",
        type=Pair(Ratio(), alone=True),
        multiple=True,
        help="Another share for the weights that match; may be repeated, the last match wins. --ratio 0.5: --sparsity.",
    ),
    click.option(
        "--floor",
        metavar="RATIO",
        type=Ratio(),
        default=0.05,
        show_default=True,
        help="Share of its elements that every weight keeps, with --per global.",
    ),
)

_WHICH: tuple[Option, ...] = (
    click.option(
        "--method",
        metavar="NAME",
        type=Known(lambda: ("auto", *MASKINGS)),
        default="auto",
        show_default=True,
        help=f"How they are chosen: {', '.join(MASKINGS)} (as in threshold:0.01 or threshold:0.5std, which also say how"
        " many); auto is alps with --data, else magnitude.",
    ),
    click.option(
        "--pattern",
        metavar="PATTERN",
        default="unstructured",
        show_default=True,
        help="Where zeros may lie: unstructured, 2:4 (or any N:M, along the inputs), 'block 4x4' (outputs x inputs).",
    ),
    click.option(
        "--permute/--no-permute",
        default=None,
        help="For N:M, first put channels into an order in which neighbours keep more, by default; the outputs stay the"
        " same.",
    ),
    click.option("--keep", metavar="GLOB", multiple=True, help="Leave weights (or nodes) alone; may be repeated."),
    click.option("--only", metavar="GLOB", multiple=True, help="Change only these; may be repeated."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="For methods that draw random numbers."
    ),
)

_FIT: tuple[Option, ...] = (
    click.option(
        "--recover/--no-recover",
        default=None,
        help="With --data: fit the elements that stay to the outputs that the original gave, or do not; by default as"
        " the method does it (alps and sparsegpt fit).",
    ),
)

_STORED: tuple[Option, ...] = (
    click.option(
        "--storage",
        type=click.Choice(STORAGES),
        default="dense",
        show_default=True,
        help="Store weights sparse where that takes fewer bytes, or, with auto, where the file gets a tenth smaller."
        " ONNX Runtime reads such files, some other runtimes do not.",
    ),
)


def _options(
    ratios: tuple[tuple[str, float], ...], permute: bool | None, sparsity: float | None, **chosen: Any
) -> SparsifyOptions:
    from onnxprune.sparsity import SparsifyOptions

    shares = [share for glob, share in ratios if not glob] + ([] if sparsity is None else [sparsity])
    if len(shares) > 1:
        raise UsageError("--sparsity and --ratio say twice how much becomes zero", hint="give one of them")
    chosen |= {"sparsity": shares[0] if shares else None, "ratios": {glob: share for glob, share in ratios if glob}}
    options = SparsifyOptions(permute=permute is not False, **chosen)
    if permute is not None and not replace(options, permute=True).order_matters:
        name = "--permute" if permute else "--no-permute"
        raise UsageError(
            f"{name} has no effect: the order of channels matters for N:M alone",
            hint=f"add --pattern 2:4, or leave out {name}",
        )
    return options


_TITLED = (titled(AMOUNT, *_AMOUNT), titled(UNITS, *_WHICH), titled(DATA, *_FIT), titled(OPTIONS, *_STORED))
# Which elements of which weights become zero; the command gets `options`.
zeros = group("options", _options, *_TITLED)
