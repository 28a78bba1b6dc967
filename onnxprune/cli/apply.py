"""`onnxprune apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import heeded
from onnxprune.cli.options import common as shared
from onnxprune.cli.output import Console
from onnxprune.errors import GoalMissed, UsageError

if TYPE_CHECKING:
    from onnxprune.calibration import Source
    from onnxprune.model import Model
    from onnxprune.pipelines.apply import Executed
    from onnxprune.rewriting import Plan


@click.command()
@heeded
@click.argument("model")
@click.argument("plan")
@click.option("-o", "--output", metavar="FILE", required=True, help="Where the model goes; - is standard output.")
@click.option("--zero", is_flag=True, help="Keep all sizes and set what would go to zero (to fine-tune elsewhere).")
@shared.verify
@shared.data
@shared.recovery("least-squares", shared.RECOVERY)
@shared.accept_damage
@shared.force
@shared.as_json
@shared.conversation
def apply(
    console: Console,
    model: str,
    plan: str,
    output: str,
    zero: bool,
    verify: bool,
    data: Source | None,
    samples: int,
    recover: str,
    accept_damage: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Carry out PLAN on MODEL: the model that it was made for, or another export of the same weights.

    A plan that does not fit is refused, with the first mismatch.
    """
    if zero and data is not None:
        raise UsageError("--zero leaves nothing to re-fit with --data", hint="leave one of them out")
    paths.check_one_pipe(model, plan)
    if output == paths.PIPE and as_json:
        raise UsageError("the model and the JSON cannot both go to standard output", hint="write the model to a file")
    paths.check_target(output, inputs=[model, plan], force=force)
    console.progress("loading")
    from onnxprune import api
    from onnxprune.model import save
    from onnxprune.recovery.recover import Options as Recovery
    from onnxprune.rewriting import Plan

    steps = Plan.from_json(paths.read_text(plan))
    if not any(step.remove for step in steps.steps):
        raise GoalMissed("nothing to prune: the plan removes nothing", hint="add positions to 'remove' of a group")
    if steps.options.get("rows"):
        paths.check_row_map(output, inputs=[model, plan], force=force)
    source = paths.load(model)
    paths.check_output(source, output, force=force)
    console.progress("rewriting")
    done = api.execute(source, steps, zero=zero, verify=verify, data=data, samples=samples, recovery=Recovery(recover))
    if done.verdict is not None and not done.verdict.ok:
        raise GoalMissed(
            f"nothing was written, the result is not proven: {done.verdict.problem}",
            hint="--no-verify writes it all the same",
        )
    console.progress("writing")
    with paths.staged(paths.row_map_text(done.rows, output)):
        save(done.model, output, force=force)
    with missed_budgets.damage_last(console, done.judged, accepted=accept_damage):
        _report(console, (model, source), (output, done), steps, as_json=as_json)


def _report(
    console: Console,
    before: tuple[str, Model],
    after: tuple[str, Executed],
    plan: Plan,
    *,
    as_json: bool,
) -> None:
    if console.quiet and not as_json:
        return
    from onnxprune.cost import counts
    from onnxprune.report import data, text

    done = after[1]
    costs = counts.of(before[1]), counts.of(done.model)
    if as_json:
        console.put_json(
            data.header("report")
            | {"model": before[0], "output": after[0]}
            | {"before": data.cost(costs[0]), "after": data.cost(costs[1]), "groups": data.steps(plan)}
            | {"io_changes": data.io_changes(done.io_changes), "rows": data.rows(done.rows)}
            | {"proof": None if done.verdict is None else data.verdict(done.verdict)}
            | {"repair": None if done.repair is None else data.repair(done.repair)}
            | {"damage": data.ruin(done.judged)}
        )
        return
    tell = console.say if after[0] == paths.PIPE else console.put
    lines = [paths.arrow(before[0], after[0]), "", *text.costs(*costs), "", *text.removal(plan)]
    lines += [*text.io_changes(done.io_changes), *text.rows(done.rows)]
    if done.verdict is not None:
        lines.append(text.entry("proof", text.proof(done.verdict)))
    if done.repair is not None:
        lines.append(text.entry("repair", text.repair(done.repair)))
    tell(lines)
