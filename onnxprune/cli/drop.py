"""`onnxprune drop`: take whole layers and blocks out, prove the result and repair it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.drop_args import DropArgs
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.blocks import dropping
from onnxprune.cli.options.data import data
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, reporting
from onnxprune.cli.options.sizes import sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.dropped import Dropped


# What `--help` shows.
USUAL = ("--output", "--list", "--count", "--blocks", "--macs", "--keep", "--data", "--dry-run")


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the smaller model goes; - is standard output.")
@dropping
@click.option("--list", "list_only", is_flag=True, help="Show the blocks with what they cost, and do nothing else.")
@sizes
@shared.verify
@data
@shared.accept_damage
@click.option("--plan-out", type=FILE, help="Also write the plan: which blocks were dropped, as JSON.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@reporting
@shared.conversation
@request(DropArgs)
def drop(console: Console, args: DropArgs) -> None:
    """Take whole layers and blocks out of MODEL, and prove the result.

    MODEL is a file, - for standard input, or a folder of graphs with their configuration, from all of which the same
    layers go. A block is whatever has one input and one output of the same shape, as a layer of a transformer. Before
    any repair, the result equals the original in which what enters a block also leaves it. With --data, the blocks are
    chosen by what the outputs lose, a map is fitted that stands for each, and the layers behind are re-fitted.
    """
    if Path(args.model).is_dir():
        from onnxprune.cli.folder import layers_of_folder

        args = layers_of_folder(console, args)
    args.check()
    source = args.load(console, args.sizes)
    if args.list_only:
        _list(console, source, args)
        return
    done = _dropped(console, source, args)
    args.write_dropped(console, done)
    with missed_budgets.damage_last(console, done.judged, accepted=args.accept_damage):
        _report(console, source, done, args)
        _check(done)


def _list(console: Console, source: Model, args: DropArgs) -> None:
    from onnxprune.pipelines.drop import list_blocks
    from onnxprune.pipelines.expert_groups import expert_groups
    from onnxprune.report import data as plain
    from onnxprune.report import drop as report

    blocks = list_blocks(source, args.options, args.sizes.numbers)
    experts = expert_groups(source, args.sizes.numbers)
    document = plain.header("blocks") | {"model": args.model, "blocks": report.blocks_data(blocks)}
    document |= {"experts": [asdict(one) for one in experts]} if experts else {}
    lines = [*report.block_lines(blocks), *report.expert_lines(experts)]
    title, files = f"blocks of {paths.shown(args.model)}", {"model": args.model}
    args.told.tell(console, Account(title, document, lines, files))


def _dropped(console: Console, source: Model, args: DropArgs) -> Dropped:
    """Choose the blocks and take them out.

    Raises:
        GoalMissed: a proof failed.
    """
    from onnxprune.pipelines.drop import drop_blocks
    from onnxprune.pipelines.prune import check_proven
    from onnxprune.pipelines.run_inputs import RunInputs

    inputs = RunInputs(args.data.source, args.data.samples, args.sizes.numbers)
    done = drop_blocks(source, args.options, inputs, verify=args.verify, progress=console.progress)
    check_proven(done.groups, done.verdict)
    check_proven(done.groups, done.repaired_verdict)
    return done


def _report(console: Console, source: Model, done: Dropped, args: DropArgs) -> None:
    from onnxprune.report import data as plain
    from onnxprune.report import drop as report
    from onnxprune.report import text

    document, models = plain.header("report") | report.drop_data(done), (source, done.model)
    args.tell(console, document, report.drop_lines(done), models=models, sizes=args.sizes.numbers)
    if args.data.source is None and not args.told.as_json:
        console.hint(
            "nothing was fitted, and the blocks were not looked at; --data FILE, a few hundred inputs without"
            " labels, chooses better ones and undoes much of the damage"
        )
    console.detail(text.stages(done.seconds))


def _check(done: Dropped) -> None:
    """Say which budgets were missed.

    Raises:
        GoalMissed: one was.
    """
    from onnxprune.report import text

    missed = [goal for goal in done.goals if not goal.met]
    if missed:
        kept = [f"{scored.block.name}: {scored.why}" for scored in done.blocks if scored.why]
        hint = "; ".join(kept[:3]) or "no other block can go: `onnxprune prune` removes channels"
        raise GoalMissed("; ".join(text.missed(goal) for goal in missed), hint=hint)
