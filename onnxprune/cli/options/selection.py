"""Options that say what is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import AMOUNT, UNITS, Option, group, titled
from onnxprune.cli.types import Known, Multiple, Pair, Ratio
from onnxprune.names import AGGREGATIONS, BUDGETS, NORMALIZATIONS, STEP_SCHEDULES, STRATEGIES

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.model import Model
    from onnxprune.tracing import Groups


@dataclass(frozen=True)
class Policy:
    """What is decided before the trace.

    Attributes:
        heads: whether attention heads may be removed.
        head_dims: remove dimensions within every head instead of heads.
        allow_io_changes: whether inputs and outputs of the model may shrink, or globs of those that may.
    """

    heads: bool
    head_dims: bool
    allow_io_changes: bool | Sequence[str]

    def trace(self, model: Model, sizes: dict[str, int]) -> Groups:
        """Trace a model under this policy, with numbers for symbolic axes."""
        from onnxprune import api

        return api.trace(
            model,
            heads=self.heads,
            head_dims=self.head_dims,
            allow_io_changes=self.allow_io_changes,
            sizes=sizes,
        )


_POLICY: tuple[Option, ...] = (
    click.option("--heads/--no-heads", default=True, help="Whether attention heads may be removed."),
    click.option("--head-dims", is_flag=True, help="Remove dimensions within every attention head instead of heads."),
    click.option(
        "--allow-io-changes", is_flag=True, help="Let the channels of the model's inputs and outputs shrink too."
    ),
    click.option(
        "--allow-io-changes-of",
        metavar="GLOB",
        multiple=True,
        help="The same for these inputs and outputs alone, such as 'p*key*' for caches; may be repeated.",
    ),
)


def _opened(all_of_them: bool, globs: Sequence[str]) -> bool | Sequence[str]:
    """Whether inputs and outputs may shrink, or globs of those that may."""
    return all_of_them or tuple(globs) or False


def _policy(allow_io_changes: bool, allow_io_changes_of: Sequence[str], **chosen: bool) -> Policy:
    return Policy(allow_io_changes=_opened(allow_io_changes, allow_io_changes_of), **chosen)


# The units of attention, and whether inputs and outputs may shrink; the command gets `policy`.
policy = group("policy", _policy, titled(UNITS, *_POLICY))


def _budget(kind: str, text: str) -> Option:
    return click.option(f"--{kind}", metavar="AMOUNT", default=None, help=text)


_AMOUNT: tuple[Option, ...] = (
    click.option(
        "-r",
        "--ratio",
        metavar="RATIO",
        type=Ratio(),
        default=None,
        help="Fraction of the units to remove: 0.5 or 50%; half if no budget is given.",
    ),
    *(_budget(kind, f"Budget on {quantity}.") for kind, quantity in BUDGETS.items()),
    click.option(
        "--ratio-for",
        metavar="GLOB=RATIO",
        type=Pair(Ratio()),
        multiple=True,
        help="Another ratio for the groups that match; may be repeated, the last match wins.",
    ),
    click.option(
        "--max-ratio",
        metavar="RATIO",
        type=Ratio(),
        default=0.9,
        show_default=True,
        help="Most that any but a plain ratio takes from one group; --latency takes more than 0.75 only where it must.",
    ),
    click.option(
        "--allocation",
        type=click.Choice(["auto", *STRATEGIES]),
        default="auto",
        show_default=True,
        help="How much every group gives: the same share, by one ranking of all units, step by step what does least"
        " damage for what it saves, or the least total damage; auto is greedy for budgets with obs, global for"
        " other budgets, uniform for a ratio.",
    ),
    click.option(
        "--normalize",
        type=click.Choice(NORMALIZATIONS),
        default=None,
        help="How --allocation global compares scores of different groups, unless as the criterion does.",
    ),
    click.option(
        "--round-to",
        metavar="N",
        type=Multiple(),
        default=None,
        help="Leave widths that are multiples of N, or, with auto, of what is measured to be fast on this machine;"
        " auto with --latency, else 1.",
    ),
)

_STEPS = click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Choose in so many parts: after each, what is left is repaired (and trained, with --train) and scored again.",
)
_STEP_SCHEDULE = click.option(
    "--step-schedule",
    type=click.Choice(STEP_SCHEDULES),
    default="linear",
    show_default=True,
    help="How large these parts are: equal, large at first, or the same share of what is left.",
)

_ROTATE = click.option(
    "--rotate/--no-rotate",
    default=False,
    show_default=True,
    help="With --data: turn the channels between linear layers to their principal components first, so that"
    " directions go in place of channels.",
)

_DROP = click.option(
    "--drop/--no-drop",
    default=False,
    show_default=True,
    help="With --data and a budget: let whole blocks go, too, where that does less damage for what it saves than"
    " units do.",
)

_EXCHANGES = click.option(
    "--exchanges",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="With --data and a budget: try N exchanges of units between groups at equal cost, and keep those that bring"
    " the outputs of the repaired model nearer to the original's.",
)


def _criteria() -> list[str]:
    from onnxprune import criteria

    return ["auto", *criteria.names()]


_UNITS: tuple[Option, ...] = (
    click.option(
        "--criterion",
        metavar="NAME",
        type=Known(_criteria),
        default="auto",
        show_default=True,
        help="What makes a unit important: l2, wanda, obs, ...; auto is obs with --data, else l2."
        " `onnxprune criteria` lists them.",
    ),
    click.option(
        "--aggregate",
        type=click.Choice(AGGREGATIONS),
        default=None,
        help="How the scores of coupled weights are combined, unless as the criterion does.",
    ),
    click.option("--keep", metavar="GLOB", multiple=True, help="Leave groups alone; may be repeated."),
    click.option("--only", metavar="GLOB", multiple=True, help="Prune only these groups; may be repeated."),
    *_POLICY,
    click.option("--exact-only", is_flag=True, help="Leave approximate groups alone (a norm or mean, ...)."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="For criteria that draw random numbers."
    ),
)

_ROWS = click.option(
    "--rows",
    metavar="NAME=FILE",
    type=Pair(click.STRING),
    multiple=True,
    help="Keep only these rows of an embedding (or classes of an output): a file of ids; may be repeated.",
)


def _options(
    ratio_for: tuple[tuple[str, float], ...],
    allow_io_changes: bool,
    allow_io_changes_of: Sequence[str],
    rows: tuple[tuple[str, str], ...] = (),
    **chosen: Any,
) -> Options:
    from onnxprune.allocation import Options
    from onnxprune.allocation.named_rows import read_rows

    opened = _opened(allow_io_changes, allow_io_changes_of)
    named = {name: read_rows(path) for name, path in rows}
    return Options(ratios=dict(ratio_for), rows=named, allow_io_changes=opened, **chosen)


# Which units of which groups are removed; the command gets `options`.
choice = group("options", _options, titled(AMOUNT, *_AMOUNT), titled(UNITS, *_UNITS))
# The same, and what only a command that removes units takes.
selection = group(
    "options",
    _options,
    titled(AMOUNT, *_AMOUNT, _STEPS, _STEP_SCHEDULE, _EXCHANGES),
    titled(UNITS, *_UNITS, _ROTATE, _DROP, _ROWS),
)
