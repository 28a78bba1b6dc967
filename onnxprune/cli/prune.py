"""`onnxprune prune`: choose what to remove, remove it, prove and repair the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.cache import cached
from onnxprune.cli.options.data import RECOVERY, data, recovery
from onnxprune.cli.options.execution import place, workers
from onnxprune.cli.options.group import TRAINING, Titled, request, titled
from onnxprune.cli.options.reporting import reporting
from onnxprune.cli.options.search import targets, trial_commands
from onnxprune.cli.options.selection import selection
from onnxprune.cli.options.sizes import sizes
from onnxprune.cli.options.training import learning_after, resume
from onnxprune.cli.output import Console
from onnxprune.cli.prune_args import PruneArgs
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.model import Model
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.pipelines.search import Found
    from onnxprune.recovery import TrainingOptions


# How to repair, if there is data and nothing else is asked for.
REPAIR = "least-squares"


# What `--help` shows.
USUAL = ("--output", "--ratio", "--macs", "--latency", "--keep", "--data", "--train", "--dry-run")


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the smaller model goes; - is standard output.")
@selection
@sizes
@shared.verify
@click.option("--time", is_flag=True, help="Measure the result against MODEL, as --latency and --round-to auto do.")
@click.option(
    "--only-if-faster",
    is_flag=True,
    help="Measure the result against MODEL, and write nothing, with exit code 1, unless it is faster.",
)
@place
@data
@recovery(REPAIR, RECOVERY)
@learning_after
@titled(
    TRAINING,
    click.option(
        "--fine-tune-command",
        metavar="COMMAND",
        help="Your own training after the repair, in each of --steps: a shell command that reads {model} and writes "
        "{output}, the same graph with other weights.",
    ),
)
@resume
@shared.accept_damage
@targets
@cached("trial of a search", "the scores, too; without a search, FILE alone is where scores are kept")
@workers(1)
@click.option("--plan-out", type=FILE, help="Also write the plan: what was removed, as JSON.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(PruneArgs)
def prune(console: Console, args: PruneArgs) -> None:
    """Make MODEL smaller, and prove the result.

    MODEL is a file, - for standard input, or a folder of graphs with their configuration, which all go into one
    plan. By default half of the units of every group go, the least important first; the result is valid, runs, and
    equals the original with the same units masked.
    """
    if Path(args.model).is_dir():
        from onnxprune.cli.folder import of_folder

        args = of_folder(console, args)
    args.check()
    source = args.load(console, args.sizes)
    outcome, found = _pruned(console, source, args)
    _judge(outcome, args)
    args.write_outcome(console, outcome, _texts(outcome, found, args))
    args.kept.remove()
    with missed_budgets.damage_last(console, outcome.judged, accepted=args.accept_damage):
        _report(console, outcome, found, args)
        if args.data.source is None and args.recover == REPAIR and _has_lost_inputs(outcome, args):
            console.hint(_advice(source))
        _check_goals(outcome, args.options, found)


def _pruned(console: Console, source: Model, args: PruneArgs) -> tuple[Outcome, Found | None]:
    """Prune once, or search for the smallest model where targets are given."""
    from onnxprune.allocation.timed import needs_tables
    from onnxprune.pipelines.run_asked import run_asked
    from onnxprune.recovery import RecoveryOptions as Recovery

    run: dict[str, Any] = {
        "samples": args.data.samples,
        "sizes": args.sizes.numbers,
        "verify": args.verify,
        "place": args.place.settled(args.sizes.numbers) if args.is_timed or needs_tables(args.options) else None,
        "recovery": Recovery(args.recover, train=_training(args), tune=_own_training(args)),
    }
    if args.wanted is None:
        options = replace(args.options, cache=args.cache.file)
        return run_asked(source, options, data=args.data.source, progress=console.progress, **run), None
    from onnxprune.pipelines.search import search

    cache = args.cache.path("search", source.digest)

    found = search(
        source,
        replace(args.options, cache=cache),
        args.wanted.settings(**run),
        args.data.source,
        workers=args.workers,
        cache=cache,
        progress=console.progress,
    )
    return found.outcome, found


def _training(args: PruneArgs) -> TrainingOptions | None:
    """How to train, if at all: by the workers, unless these do the trials of a search."""
    return args.learning.settled(args.kept, args.place, args.workers if args.wanted is None else 1)


def _own_training(args: PruneArgs) -> Callable[[Model], Model] | None:
    """The command that trains, if there is one."""
    if args.fine_tune_command is None:
        return None
    from onnxprune.pipelines.user_training import UserTraining

    return UserTraining(args.fine_tune_command)


def _texts(outcome: Outcome, found: Found | None, args: PruneArgs) -> dict[str, str]:
    """The text files that go with the model: those of a search, the plan, and the new numbers of rows."""
    texts = args.wanted.texts(found) if found and args.wanted else {}
    rows = {} if args.output is None else paths.row_map_text(outcome.rows, args.output)
    return {**texts, **args.plan_text(outcome.plan), **rows}


def _has_lost_inputs(outcome: Outcome, args: PruneArgs) -> bool:
    """Whether more went than rows that are not named, behind which no layer reads less than before."""
    from onnxprune.allocation.named_rows import removed

    _, of_rows = removed(outcome.groups, args.options.rows)
    return any(step.remove and step.group not in of_rows for step in outcome.plan.steps)


def _advice(model: Model) -> str:
    """What would recover the damage of a cut."""
    from onnxprune.layers.bn_matching import NORM

    advice = (
        "the layers that lost inputs were not re-fitted; --data FILE, a few hundred inputs without labels,"
        " undoes most of the damage"
    )
    normed = any(node.op_type == NORM for node in model.proto.graph.node)
    return f"{advice}; --data random, without a file, some of it" if normed else advice


def _judge(outcome: Outcome, args: PruneArgs) -> None:
    """Refuse to write what is not proven, or not faster where that is asked for, and to call nothing a result.

    Raises:
        GoalMissed: the proof failed, or no unit was removed though a ratio was asked for, or the result is not faster.
        ModelError: the model contradicts itself, so that nothing could run it.
    """
    from onnxprune.pipelines.prune import check_proven

    check_proven(outcome.groups, outcome.verdict)
    options, timed = args.options, outcome.timed
    if args.only_if_faster and timed is not None and not timed.ratio.is_faster:
        from onnxprune.report import text

        raise GoalMissed(
            f"the smaller model is not measured to be faster: {text.timed(timed)}; nothing was written",
            hint="remove more, give --latency, or look with `onnxprune inspect --time` where the time goes",
        )
    asked = max(options.share, *options.ratios.values(), 0.0)
    if asked and not any(step.remove for step in outcome.plan.steps):
        raise GoalMissed(
            "nothing to prune: no group has enough units for the ratio to remove one",
            hint="raise --ratio, or lower --round-to",
        )


def _check_goals(outcome: Outcome, options: Options, found: Found | None) -> None:
    """Say what was missed, after what could be reached is written.

    Raises:
        GoalMissed: groups were left whole, or a budget or a target was missed.
    """
    if outcome.rolled_back:
        names = ", ".join(r.group for r in outcome.rolled_back)
        raise GoalMissed(
            f"left whole, because their proof failed: {names} ({outcome.rolled_back[0].problem})",
            hint="the model that was written is valid and proven; please report this",
        )
    if found and not found.met:
        raise GoalMissed(
            "the model that was written misses its target, though the same cut met it in its trial",
            hint="the measure varies from run to run: allow more, or measure on more samples",
        )
    missed_budgets.check(outcome.goals, outcome.groups, options)


def _report(console: Console, outcome: Outcome, found: Found | None, args: PruneArgs) -> None:
    if outcome.timed is not None and outcome.timed.is_slower:
        console.say("warning: the smaller model measures slower than the original")
    from onnxprune.report import data as plain
    from onnxprune.report import search, text

    trace = {"search": found.as_json()} if found else {}
    args.tell(
        console,
        plain.header("report") | plain.outcome_json(outcome) | trace,
        [*text.outcome(outcome), *(["", *search.search_lines(found)] if found else [])],
        models=(outcome.groups.model, outcome.model),
        sizes=args.sizes.numbers,
        commands=trial_commands(console.command, found) if found else (),
    )
    console.detail(text.damage(outcome.recovery))
    console.detail(text.stages(outcome.seconds))
