"""`onnxprune prune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import heeded
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.cache import Cache, cached
from onnxprune.cli.options.search import Wanted, targets
from onnxprune.cli.output import Console
from onnxprune.errors import GoalMissed, ModelError, UsageError

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.calibration import Source
    from onnxprune.model import Model
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.pipelines.search import Found


# How to repair, if there is data and nothing else is asked for.
REPAIR = "least-squares"


@click.command()
@heeded
@click.argument("model")
@click.option("-o", "--output", metavar="FILE", help="Where the smaller model goes; - is standard output.")
@shared.selection
@shared.sizes
@shared.verify
@click.option("--time", is_flag=True, help="Measure the result against MODEL, as --latency and --round-to auto do.")
@shared.place
@shared.data
@shared.recovery(REPAIR, shared.RECOVERY)
@shared.accept_damage
@targets
@cached("trial of a search")
@shared.workers(1)
@click.option("--plan-out", metavar="FILE", help="Also write the plan: what was removed, as JSON.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@shared.as_json
@shared.conversation
def prune(
    console: Console,
    model: str,
    output: str | None,
    options: Options,
    sizes: dict[str, int],
    verify: bool,
    time: bool,
    place: shared.Where,
    data: Source | None,
    samples: int,
    recover: str,
    accept_damage: bool,
    wanted: Wanted | None,
    cache: Cache,
    workers: Any,
    plan_out: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make MODEL smaller, and prove the result.

    MODEL is a file, or - for standard input. By default half of the units of every group go, the least
    important first; the result is valid, runs, and equals the original with the same units masked.
    """
    _check(model, output, plan_out, force=force, dry_run=dry_run, as_json=as_json)
    if wanted is not None and not dry_run:
        wanted.check(model, force=force)
    rows = paths.row_map(output) if options.rows and output is not None else None
    paths.check_distinct(output, plan_out, wanted.picture if wanted else None, rows)
    if options.rows and output is not None and not dry_run:
        paths.check_row_map(output, inputs=[model], force=force)
    console.progress("loading")
    from onnxprune import api
    from onnxprune.allocation.timed import needs_tables
    from onnxprune.recovery.recover import Options as Recovery

    source = paths.load(model)
    shared.check_sizes(source, sizes)
    if output is not None and not dry_run:
        paths.check_output(source, output, force=force)
    where = place.settled() if time or needs_tables(options) else None
    given: dict[str, Any] = {"data": data, "samples": samples, "sizes": sizes, "verify": verify, "place": where}
    given |= {"recovery": Recovery(recover), "progress": console.progress}
    kept = cache.path("search", source.digest)
    found = wanted.search(source, options, workers=workers, cache=kept, **given) if wanted else None
    outcome = found.outcome if found else api.run(source, options, **given)
    _judge(outcome, options)
    if not dry_run and output is not None:
        console.progress("writing")
        texts = wanted.texts(found, paths.shown(model)) if found and wanted else {}
        if plan_out is not None:
            texts[plan_out] = outcome.plan.to_json()
        _write(outcome, output, texts, force=force)
    with missed_budgets.damage_last(console, outcome.judged, accepted=accept_damage):
        _report(console, outcome, model, None if dry_run else output, found, as_json=as_json)
        if data is None and recover == REPAIR:
            console.say(_advice(source))
        _check_goals(outcome, options, found)


def _write(outcome: Outcome, output: str, texts: Mapping[str, str], *, force: bool) -> None:
    """The model and all that goes with it, or nothing."""
    from onnxprune.model import save

    with paths.staged({**texts, **paths.row_map_text(outcome.rows, output)}):
        save(outcome.model, output, force=force)


def _advice(model: Model) -> str:
    """What would mend the damage of a cut."""
    from onnxprune.layers.bn_matching import NORM

    advice = (
        "hint: nothing was repaired; --data with some hundred inputs, without labels, makes up for most of the damage"
    )
    knows = any(node.op_type == NORM for node in model.proto.graph.node)
    return f"{advice}, and here --data random for some" if knows else advice


def _check(model: str, output: str | None, plan_out: str | None, *, force: bool, dry_run: bool, as_json: bool) -> None:
    """Refuse what cannot work before any work is done."""
    if output is None and not dry_run:
        raise UsageError("no output: -o FILE is missing", hint="add -o small.onnx, or --dry-run to only look")
    if output == paths.PIPE and as_json:
        raise UsageError("the model and the JSON cannot both go to standard output", hint="write the model to a file")
    if plan_out == paths.PIPE:
        raise UsageError("--plan-out needs a file", hint="`onnxprune plan` writes to standard output")
    if not dry_run:
        for target in (output, plan_out):
            if target is not None:
                paths.check_target(target, inputs=[model], force=force)


def _judge(outcome: Outcome, options: Options) -> None:
    """Refuse to write what is not proven, and to call nothing a result.

    Raises:
        GoalMissed: the proof failed, or no unit was removed though a ratio was asked for.
        ModelError: the model contradicts itself, so that nothing could run it.
    """
    from onnxprune.tracing.rules.ask import CONTRADICTION

    if outcome.verdict is not None and not outcome.verdict.runnable:
        for barrier in outcome.groups.barriers:
            if barrier.reason.startswith(CONTRADICTION):
                raise ModelError(f"nothing can run the model: {barrier.op} {barrier.node!r} {barrier.reason}")
    if outcome.verdict is not None and not outcome.verdict.ok:
        raise GoalMissed(
            f"nothing was written, the result is not proven: {outcome.verdict.problem}",
            hint="--no-verify writes it all the same",
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
        raise GoalMissed("the model that was written is not good enough, though the same cut was when it was tried")
    missed_budgets.check(outcome.goals, outcome.groups, options)


def _report(
    console: Console, outcome: Outcome, model: str, output: str | None, found: Found | None, *, as_json: bool
) -> None:
    if outcome.timed is not None and outcome.timed.is_slower:
        console.say("warning: the smaller model measures slower than the original")
    from onnxprune.report import data, search, text

    if as_json:
        trace = {"search": found.as_json()} if found else {}
        console.put_json(data.header("report") | {"model": model, "output": output} | data.outcome(outcome) | trace)
        return
    tell = console.say if output == paths.PIPE or console.quiet else console.put
    tell([paths.arrow(model, output or "(not written)"), "", *text.outcome(outcome)])
    if found:
        tell(["", *search.lines(found)])
    console.detail(text.damage(outcome.repair))
    console.detail(text.stages(outcome.seconds))
