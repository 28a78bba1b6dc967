"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.output import Console
from onnxprune.cli.types import Multiple, Pair, Ratio, Shape
from onnxprune.errors import UsageError
from onnxprune.names import AGGREGATIONS, BUDGETS, NORMALIZATIONS, RECOVERIES, STRATEGIES

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.runtime.bench import Place

Command = Callable[..., Any]

_SELECTION = (
    "ratio",
    "ratio_for",
    "criterion",
    "aggregate",
    *BUDGETS,
    "allocation",
    "normalize",
    "max_ratio",
    "keep",
    "only",
    "round_to",
    "heads",
    "head_dims",
    "exact_only",
    "allow_io_changes",
    "rows",
    "seed",
    "steps",
)


@dataclass(frozen=True)
class Where:
    """Where times are measured, as it was given; nothing is imported for it."""

    provider: str
    threads: int
    shapes: dict[str, tuple[int, ...]]

    def settled(self) -> Place:
        """The same, checked."""
        from onnxprune.runtime import Setting
        from onnxprune.runtime.bench import Place

        return Place(Setting(self.provider, self.threads), self.shapes)


def place(function: Command) -> Command:
    """Add where a model runs; the command gets `place`."""

    @click.option(
        "--provider",
        metavar="NAME",
        default="CPU",
        show_default=True,
        help="Execution provider of ONNX Runtime that times are measured on.",
    )
    @click.option(
        "--threads", metavar="N", type=click.IntRange(0), default=0, show_default=True, help="Threads; 0 is all cores."
    )
    @click.option(
        "--shape",
        "shapes",
        metavar="INPUT=SHAPE",
        type=Pair(Shape()),
        multiple=True,
        help="Sizes of an input when times are measured, as in input=1x3x224x224; may be repeated.",
    )
    @functools.wraps(function)
    def wrapped(
        *args: Any, provider: str, threads: int, shapes: tuple[tuple[str, tuple[int, ...]], ...], **given: Any
    ) -> Any:
        return function(*args, place=Where(provider, threads, dict(shapes)), **given)

    return wrapped


def conversation(function: Command) -> Command:
    """Add `-q` and `-v`; the command gets the console as its first argument."""

    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option("-v", "--verbose", count=True, help="Say more: -v stages and times, -vv debug log and tracebacks.")
    @click.pass_obj
    @functools.wraps(function)
    def wrapped(console: Console, /, *, quiet: bool, verbose: int, **given: Any) -> None:
        console.quiet, console.verbosity = quiet, verbose
        console.attach_log()
        function(console, **given)

    return wrapped


def as_json(function: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")(function)


def force(function: Command) -> Command:
    """Add `--force`."""
    return click.option("--force", is_flag=True, help="Overwrite existing files (never the input).")(function)


accept_damage = click.option(
    "--accept-damage",
    is_flag=True,
    help="Exit with 0 even where the outputs on samples of --data are far from the original's after all repair.",
)


def verify(function: Command) -> Command:
    """Add `--verify/--no-verify`."""
    return click.option(
        "--verify/--no-verify", default=True, help="Prove the result, by default; --no-verify skips it."
    )(function)


def sizes(function: Command) -> Command:
    """Add `--sizes NAME=N`; the command gets a dict."""

    @click.option(
        "--sizes",
        metavar="NAME=N",
        type=Pair(click.IntRange(min=1)),
        multiple=True,
        help="Number to assume for a symbolic axis (batch=4) while shapes are worked out; may be repeated.",
    )
    @functools.wraps(function)
    def wrapped(*args: Any, sizes: tuple[tuple[str, int], ...], **given: Any) -> Any:
        return function(*args, sizes=dict(sizes), **given)

    return wrapped


_DATA: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--data",
        metavar="SOURCE",
        help="Unlabelled inputs: .npz, .npy, Polygraphy .json, .txt, a folder of arrays, images or test_data_set_*, "
        "module:function, or random.",
    ),
    click.option(
        "--samples",
        metavar="N",
        type=click.IntRange(1),
        default=256,
        show_default=True,
        help="How many of them to use.",
    ),
    click.option(
        "--preprocess",
        metavar="FILE",
        help="How --data images become inputs: a TOML file, or imagenet, tf, caffe, unit or raw.",
    ),
    click.option("--tokenizer", metavar="FILE", help="The tokenizer.json of --data text."),
)


def data(function: Command) -> Command:
    """Add calibration data; the command gets `data`, a source or None, and `samples`."""

    @functools.wraps(function)
    def wrapped(*args: Any, data: str | None, preprocess: str | None, tokenizer: str | None, **given: Any) -> Any:
        if data is None:
            return function(*args, data=None, **given)
        from onnxprune.calibration import Source

        return function(*args, data=Source(data, preprocess, tokenizer), **given)

    command: Command = wrapped
    for option in reversed(_DATA):
        command = option(command)
    return command


RECOVERY = (
    "With --data: how what is behind a cut is re-fitted to the outputs that it gave. Without: bias and merge repair"
    " what the weights tell, the others nothing."
)


def recovery(default: str, text: str) -> Callable[[Command], Command]:
    """Add `--recover`, the way to re-fit what is behind a cut."""
    methods = click.Choice(["none", *RECOVERIES])
    return click.option("--recover", type=methods, default=default, show_default=True, help=text)


evaluation = click.option(
    "--eval",
    "evaluate",
    metavar="WHAT",
    help="Your own measure, higher is better: module:function, called with the path of a model, "
    "or a command with {model} in it that prints a number.",
)


def workers(default: int | None) -> Callable[[Command], Command]:
    """Add where independent work is done; the command gets `workers`, as `jobs.stream` takes it.

    Args:
        default: local processes; None is one per core.
    """
    processes = click.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(1),
        default=None,
        help=f"Local worker processes; by default {default or 'one per core'}.",
    )
    cluster = click.option(
        "--dask", metavar="SCHEDULER", help="Send the work to a Dask cluster: tcp://host:8786, or a scheduler file."
    )

    def add(function: Command) -> Command:
        @functools.wraps(function)
        def wrapped(*args: Any, jobs: int | None, dask: str | None, **given: Any) -> Any:
            if dask is not None and jobs is not None:
                raise UsageError(
                    "--jobs and --dask cannot both be given", hint="a cluster says how many workers it has"
                )
            if dask is None:
                from onnxprune.runtime.session import cores

                return function(*args, workers=jobs or default or cores(), **given)
            from onnxprune.runtime.dask import connected

            with connected(dask) as client:
                return function(*args, workers=client, **given)

        return processes(cluster(wrapped))

    return add


def check_sizes(model: Model, given: dict[str, int]) -> None:
    """Refuse sizes for axes that the model does not have."""
    from onnxprune.model.shapes.symbols import symbolic_dims

    known = list(symbolic_dims(model.proto.graph))
    for name in given:
        if name not in known:
            raise UsageError(
                f"--sizes: no symbolic axis of {model.name} is called {name!r}",
                hint=f"known: {', '.join(known)}" if known else "all axes of its inputs have a size",
            )


def policy(function: Command) -> Command:
    """Add what is decided before the trace: the units of attention, and whether inputs and outputs may shrink."""
    function = click.option(
        "--allow-io-changes", is_flag=True, help="Let the channels of the model's inputs and outputs shrink too."
    )(function)
    function = click.option(
        "--head-dims", is_flag=True, help="Remove dimensions within every attention head instead of heads."
    )(function)
    return click.option("--heads/--no-heads", default=True, help="Whether attention heads may be removed.")(function)


def _budget(kind: str, text: str) -> Callable[[Command], Command]:
    return click.option(f"--{kind}", metavar="AMOUNT", default=None, help=text)


_WHAT: tuple[Callable[[Command], Command], ...] = (
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
        "--criterion",
        metavar="NAME",
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
        "--max-ratio",
        metavar="RATIO",
        type=Ratio(),
        default=0.9,
        show_default=True,
        help="Most that any but a plain ratio takes from one group; --latency takes more than 0.75 only where it must.",
    ),
    click.option("--keep", metavar="GLOB", multiple=True, help="Leave groups alone; may be repeated."),
    click.option("--only", metavar="GLOB", multiple=True, help="Prune only these groups; may be repeated."),
    click.option(
        "--round-to",
        metavar="N",
        type=Multiple(),
        default=None,
        help="Leave widths that are multiples of N, or, with auto, of what is measured to be fast on this machine;"
        " auto with --latency, else 1.",
    ),
    policy,
    click.option("--exact-only", is_flag=True, help="Leave approximate groups alone (a norm or mean, ...)."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="For criteria that draw random numbers."
    ),
)

_MORE: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--rows",
        metavar="NAME=FILE",
        type=Pair(click.STRING),
        multiple=True,
        help="Keep only these rows of an embedding (or classes of an output): a file of ids; may be repeated.",
    ),
    click.option(
        "--steps",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Choose in so many parts: after each, what is left is repaired and scored anew.",
    ),
)


def choice(function: Command) -> Command:
    """Add what says which units of which groups are to be removed; the command gets `options`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **given: Any) -> Any:
        from onnxprune.allocation import Options
        from onnxprune.allocation.named_rows import read

        chosen = {name: given.pop(name) for name in _SELECTION if name in given}
        kept = {name: read(path) for name, path in chosen.pop("rows", ())}
        options = Options(ratios=dict(chosen.pop("ratio_for")), rows=kept, **chosen)
        return function(*args, options=options, **given)

    command: Command = wrapped
    for option in reversed(_WHAT):
        command = option(command)
    return command


def selection(function: Command) -> Command:
    """Add everything that says what is to be removed; the command gets `options`."""
    command = choice(function)
    for option in reversed(_MORE):
        command = option(command)
    return command
