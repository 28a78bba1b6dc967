"""Options that say how a model is quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.data import evaluation
from onnxprune.cli.options.group import AMOUNT, DATA, SEARCH, Option, group, titled
from onnxprune.cli.types import LARGEST
from onnxprune.names import BLOCK_BITS, QUANTIZED_FORMS, WEIGHT_TYPES, WHOLE_TYPES

if TYPE_CHECKING:
    from onnxprune.pipelines.quantize_options import QuantizeOptions

_HOW: tuple[Option, ...] = (
    click.option(
        "--form",
        type=click.Choice(["auto", *QUANTIZED_FORMS]),
        default="auto",
        show_default=True,
        help="How it is written: qdq (quantisers around float nodes, which runtimes fuse), operators (QLinearConv and"
        " its kin), dynamic (activations quantised by their own range), blocks (weights alone, of a few bits). auto is"
        " qdq with --data, else dynamic.",
    ),
    click.option(
        "--weights",
        type=click.Choice(WEIGHT_TYPES),
        default="int8",
        show_default=True,
        help="Type of weights; those of 4 bits are for --form qdq.",
    ),
    click.option(
        "--activations", type=click.Choice(WHOLE_TYPES), default="uint8", show_default=True, help="That of activations."
    ),
    click.option(
        "--per-channel/--per-tensor",
        default=True,
        help="A scale for every output of a weight, by default, or one for all of it.",
    ),
    click.option(
        "--bits",
        type=click.Choice([str(bits) for bits in BLOCK_BITS]),
        default="4",
        show_default=True,
        help="Of a weight, for --form blocks.",
    ),
    click.option(
        "--block-size",
        metavar="N",
        type=click.IntRange(1, LARGEST),
        default=32,
        show_default=True,
        help="Inputs that share a scale, for --form blocks: 16, 32, 64, ...",
    ),
    click.option("--symmetric", is_flag=True, help="No zero points, for --form blocks."),
    click.option(
        "--narrow",
        metavar="GLOB",
        multiple=True,
        help="Give layers weights of 4 bits, for --form qdq; may be repeated.",
    ),
    click.option("--keep", metavar="GLOB", multiple=True, help="Leave layers in float; may be repeated."),
)

_BUDGETS: tuple[Option, ...] = (
    click.option(
        "--size",
        metavar="AMOUNT",
        help="Largest file, as 10% of MODEL or 200KB: units are removed, and layers get 4 bits in place of 8, as is"
        " best on held-out inputs of --data.",
    ),
    click.option("--macs", metavar="AMOUNT", help="Most multiply-accumulates, for the same."),
    click.option(
        "--latency",
        metavar="AMOUNT",
        help="Most time of a run, measured on this machine, as 60% of MODEL's or 12ms: units are removed, and layers"
        " stay in float or are quantised, as is best on held-out inputs of --data.",
    ),
)

_FIT: tuple[Option, ...] = (
    click.option(
        "--fit/--no-fit",
        default=True,
        help="With --data: choose the numbers by what the layers make, by default, not the nearest.",
    ),
)

_TARGETS: tuple[Option, ...] = (
    click.option(
        "--min-sqnr",
        metavar="DB",
        help="Leave layers in float, those first that lose most, until the outputs keep this signal to noise on inputs"
        " of --data that are held out.",
    ),
    click.option(
        "--max-drop",
        metavar="AMOUNT",
        help="The same until the --eval value drops by no more: 1% of the float model's, or a number.",
    ),
    evaluation,
)


def _options(
    min_sqnr: str | None, max_drop: str | None, evaluate: str | None, bits: str, **given: Any
) -> QuantizeOptions:
    from onnxprune.pipelines import Evaluation
    from onnxprune.pipelines.quantize_options import QuantizeOptions
    from onnxprune.pipelines.search_targets import quality_constraint

    constraint = quality_constraint(max_drop, min_sqnr)
    measure = None if evaluate is None else Evaluation(evaluate)
    return QuantizeOptions(bits=int(bits), constraint=constraint, evaluation=measure, **given)


# How a model is quantised; the command gets `options`.
quantizing = group(
    "options", _options, *_HOW, titled(AMOUNT, *_BUDGETS), titled(DATA, *_FIT), titled(SEARCH, *_TARGETS)
)
