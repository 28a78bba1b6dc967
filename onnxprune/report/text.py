"""Results as lines of plain text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxprune.cost.counts import branches_taken
from onnxprune.report import numbers
from onnxprune.report.data import follows, opsets, removed_units
from onnxprune.report.exchanges import exchange_lines
from onnxprune.report.together import together_lines
from onnxprune.report.training import training_lines

if TYPE_CHECKING:
    from onnxprune.allocation import BudgetKind, BudgetResult
    from onnxprune.allocation.timed import GroupTime
    from onnxprune.cost import Cost
    from onnxprune.cost.counts import Branches
    from onnxprune.cost.latency import Timed
    from onnxprune.model import Model
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.proof import Verdict
    from onnxprune.recovery import RecoveryReport
    from onnxprune.rewriting import Plan
    from onnxprune.rewriting.io_changes import Change, RowMap
    from onnxprune.runtime.bench import Result
    from onnxprune.runtime.paired_timing import TimeRatio
    from onnxprune.tracing import Barrier, Group, Groups
    from onnxprune.tracing.rules import Rule

TOP_BARRIERS = 3
TOP_DEFAULTS = 3


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """Aligned columns, two blanks apart.

    Args:
        header: names of the columns.
        rows: the cells.
        right: names of the columns that are aligned on the right.
    """
    lines = [header, *rows] if any(header) else list(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))] if lines else []
    made = []
    for line in lines:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ]
        made.append("  ".join(cells).rstrip())
    return made


def costs(before: Cost, after: Cost) -> list[str]:
    """The table of what a model costs before and after."""
    rows = [
        (name, show(old), show(new), numbers.change(old, new))
        for name, show, old, new in (
            ("params", numbers.count, before.params, after.params),
            ("MACs", numbers.count, before.macs, after.macs),
            ("weights", numbers.bytes_text, before.size, after.size),
        )
    ]
    return table(("", "before", "after", "change"), rows, ("before", "after", "change"))


# --- bench ------------------------------------------------------------------------------------------------


def timed(of: Timed) -> str:
    """The time of a run before and after, and where."""
    threads = numbers.plural(of.place.setting.threads, "thread") if of.place.setting.threads else "all cores"
    provider = of.place.setting.provider.removesuffix("ExecutionProvider")
    change = f"{numbers.duration(of.before)} -> {numbers.duration(of.after)}"
    left = "SLOWER, " if of.is_slower else ""
    expected = "" if of.predicted is None else f", {of.predicted:.3f} expected"
    lost = "" if of.damage is None else f"; {of.damage:.1%} of the importance expected to be lost"
    return f"{change} ({left}{ratio(of.ratio)}{expected}; {provider}, {threads}){lost}"


def benched(results: Sequence[Result]) -> list[str]:
    """What models take, and how that compares to the first of them."""
    rows, energies = [], [timing.energy for result in results for timing in result.timings if timing.energy is not None]
    for index, result in enumerate(results):
        for timing in result.timings:
            memory = "-" if result.memory is None else numbers.bytes_text(result.memory)
            size = numbers.bytes_text(result.size)
            cells = (numbers.duration(timing.median), numbers.duration(timing.p95), f"{timing.throughput:,.1f}/s")
            compared = ratio(timing.ratio) if index else "(first)"
            spent = () if timing.energy is None else (numbers.energy(timing.energy.joules),)
            rows.append((result.name, str(timing.batch), *cells, *spent, memory, size, compared))
    spent = ("energy (estimate)" if energies[0].estimated else "energy",) if energies else ()
    header = ("model", "batch", "median", "p95", "throughput", *spent, "memory", "file", "time / first")
    shapes = [f"{n} {'x'.join(map(str, shape)) or 'scalar'}" for n, shape in results[0].shapes.items()]
    sources = dict.fromkeys(energy.source for energy in energies)
    lines = [entry("inputs", ", ".join(shapes)), "", *table(header, rows, header[1:-1])]
    return [*lines, *([""] if sources else []), *(entry("energy", source) for source in sources)]


def ratio(of: TimeRatio) -> str:
    """How two times compare, with the confidence interval; no number where that is noise."""
    if of.is_noise:
        return f"no difference measured (within {100 * max(of.high - 1, 1 - of.low):.1f} %)"
    return f"{of.value:.3f} ({of.low:.3f} to {of.high:.3f})"


# --- prune ------------------------------------------------------------------------------------------------


def outcome(result: Outcome) -> list[str]:
    """The account of one run: costs, what went, what is locked and the proof."""
    lines = [*costs(result.before, result.after), "", *mends(result.groups.model)]
    lines += [
        *(entry(*said) for said in together_lines(result)),
        *removal(result.plan),
        *(entry(*said) for said in exchange_lines(result)),
        *branch_lines(branches_taken(result.groups.tracing)),
        *budgets(result.goals),
        *io_changes(result.io_changes),
        *rows(result.rows),
    ]
    if result.timed is not None:
        lines.append(entry("time", timed(result.timed)))
    if result.verdict is not None:
        lines.append(entry("proof", proof(result.verdict)))
    if result.recovery is not None:
        lines.append(entry("repair", recovery_lines(result.recovery)))
    lines += [entry(*said) for said in training_lines(result)]
    return lines + locked(result.groups)


def mends(model: Model) -> list[str]:
    """What was put right in the file when it was loaded."""
    return [entry("mended", note) for note in model.mended]


def recovery_lines(of: RecoveryReport) -> str:
    """What calibration data recovered."""
    better = sum(fit.kept for fit in of.fits)
    done = f"{better} of {numbers.plural(len(of.fits), 'layer')} re-fitted"
    if not of.before.is_known:
        return f"{done}, no output tells what that is worth"
    if not of.kept:
        held = numbers.plural(of.held, "sample")
        return f"none: {done} left the output error at {of.before.error:.2g} on {held} that no fit saw"
    parts = [f"squared output error {of.before.error:.2g} -> {of.after.error:.2g}"]
    parts.append(f"{of.before.sqnr:.1f} -> {of.after.sqnr:.1f} dB")
    if of.before.top1 is not None and of.after.top1 is not None:
        parts.append(f"same class {of.before.top1:.0%} -> {of.after.top1:.0%}")
    held = numbers.plural(of.held, "sample")
    return f"{done} on {of.fitted} samples; {', '.join(parts)} on {held} that no fit saw"


def damage(of: RecoveryReport | None) -> list[str]:
    """Per group, what its removal did to the layers that read it; nothing without a repair."""
    rows = [(name, f"{before:.2g}", f"{after:.2g}") for name, (before, after) in of.damage.items()] if of else []
    return table(("relative error behind", "cut", "repaired"), rows, ("cut", "repaired")) if rows else []


def entry(name: str, text: str) -> str:
    """One line of an account: its name, and what there is to say."""
    return f"{name:<9}{text}".rstrip()


def removal(plan: Plan) -> list[str]:
    """How many groups are rotated, how many groups and units go, and whether that is exact."""
    removed = {step.group: removed_units(step) for step in plan.steps}
    hit = [step for step in plan.steps if removed[step.group]]
    units = sum(step.units for step in plan.steps)
    counts = len(hit), numbers.plural(len(plan.steps), "group"), sum(removed.values()), numbers.plural(units, "unit")
    turned = f"{numbers.plural(len(plan.rotations), 'group')} to principal components"
    lines = [entry("rotated", turned)] if plan.rotations or plan.options.get("rotate") else []
    lines.append(entry("pruned", "{} of {}, {:,} of {}".format(*counts)))
    approximate = [step for step in hit if not step.exact]
    if approximate:
        reason = next(filter(None, (step.approximate for step in approximate)), "it is not said why")
        note = f"{numbers.plural(len(approximate), 'group')}, as {reason}"
        lines.append(entry("approx.", f"{note} (--exact-only leaves these alone)"))
    return lines


# Name of the unit of a budget -> how amounts are written.
_AMOUNTS: Mapping[str, Callable[[float], str]] = {
    "count": numbers.count,
    "bytes": numbers.bytes_text,
    "seconds": numbers.duration,
}


def _kind(goal: BudgetResult) -> tuple[BudgetKind, Callable[[float], str]]:
    """The kind of a budget, and how its amounts are written."""
    from onnxprune.allocation import KINDS  # most commands say nothing of budgets

    kind = KINDS[goal.kind]
    return kind, _AMOUNTS[kind.unit.name]


def budgets(of: Sequence[BudgetResult]) -> list[str]:
    """What the budgets allowed, and what was reached, one line each."""
    lines = []
    for goal in of:
        kind, show = _kind(goal)
        found = (
            f"{show(goal.reached)} of at most {show(goal.most)} ({numbers.percent(goal.reached, goal.before)} is left)"
        )
        why = f": {goal.why}" if goal.why else ""
        if goal.before <= goal.most:
            why = f"; the model was within the budget already{why}"
        lines.append(entry("budget", f"{kind.label}: {found}{'' if goal.met else ', MISSED'}{why}"))
    return lines


def branch_lines(of: Sequence[Branches]) -> list[str]:
    """Which branches the data take, one line per If with layers in it."""
    lines = []
    for each in of:
        total = sum(each.runs.values())
        taken = [f"{name} in {'all' if n == total else n} of {total} runs" for name, n in each.runs.items() if n]
        left = [f"{name} is neither counted nor repaired" for name, n in each.runs.items() if not n]
        lines.append(entry("branch", f"{each.node}: {', '.join([*taken, *left])}"))
    return lines


def missed(goal: BudgetResult) -> str:
    """A budget that cannot be met, and the best that can be reached."""
    kind, show = _kind(goal)
    left = numbers.percent(goal.reached, goal.before)
    best = "fastest that was found" if kind.is_timed else "least that can be reached"
    return f"{kind.label}: {show(goal.most)} was asked for, the {best} is {show(goal.reached)} ({left})"


def io_changes(of: Sequence[Change]) -> list[str]:
    """The axes of inputs and outputs that shrank, one line each; of inputs with a stored value the first ones."""
    lines = [
        entry("changed", f"{c.kind} {c.name}: axis {c.axis} {c.before} -> {c.after}") for c in of if c.kind != "default"
    ]
    stored = [c for c in of if c.kind == "default"]
    for c in stored[:TOP_DEFAULTS]:
        change = f"input {c.name} with its stored value: axis {c.axis} {c.before} -> {c.after}"
        lines.append(entry("changed", change))
    if len(stored) > TOP_DEFAULTS:
        more = numbers.plural(len(stored) - TOP_DEFAULTS, "more change")
        lines.append(entry("", f"{more} of weights that the file lists as inputs: see --json"))
    return lines


def rows(of: Sequence[RowMap]) -> list[str]:
    """How many rows were kept by name, and which ids must be mapped."""
    lines = []
    for m in of:
        ids = f", map the ids in {', '.join(m.inputs)}" if m.inputs else ""
        lines.append(entry("rows", f"{m.name}: {m.size:,} -> {len(m.kept):,}{ids}"))
    return lines


def locked(groups: Groups, most: int = TOP_BARRIERS) -> list[str]:
    """What locks most of the weights."""
    _, total = groups.prunable
    lines = [
        entry("locked", f"an axis of {numbers.percent(barrier.params, total)} of the weights: {reason(barrier)}")
        for barrier in groups.barriers[:most]
    ]
    if len(groups.barriers) > most:
        more = numbers.plural(len(groups.barriers) - most, "more reason")
        lines.append(entry("", f"{more}: see `onnxprune inspect`"))
    return lines


def reason(barrier: Barrier) -> str:
    """A barrier's reason, with the node that says so where the reason does not name it."""
    where = " ".join(part for part in (barrier.op, barrier.node) if part)
    return f"{barrier.reason} ({where})" if where and barrier.node not in barrier.reason else barrier.reason


def proof(verdict: Verdict) -> str:
    """The verdict in one line."""
    if not verdict.ok:
        return f"failed: {verdict.problem}"
    equal = (
        f"equal to the masked original, largest error {numbers.error(verdict.error)} "
        f"(tolerance {numbers.error(verdict.tolerance)})"
    )
    if (found := verdict.strength) is None or not found.tried:
        return equal
    planted = numbers.plural(found.tried, "error")
    if verdict.blind:
        return f"stored weights as in the original; of {planted} planted in weights, a run noticed none"
    return f"{equal}; of {planted} planted in weights, a run noticed {found.noticed}"


def stages(seconds: Mapping[str, float]) -> list[str]:
    """How long every stage took."""
    rows = [(name, numbers.seconds(value)) for name, value in seconds.items()]
    return table(("", "time"), rows, ("time",))


# --- inspect ----------------------------------------------------------------------------------------------


def inspection(
    name: str, groups: Groups, cost: Cost, times: Mapping[str, GroupTime] | None = None, *, members: bool
) -> list[str]:
    """Groups and barriers of a model; with what groups take of a run, where that was measured."""
    held, total = groups.prunable
    lines = [
        f"{name}: {numbers.count(cost.params)} params, {numbers.count(cost.macs)} MACs, "
        f"{numbers.bytes_text(cost.size)} of weights",
        f"{numbers.percent(held, total)} of the weights can be pruned, "
        f"in {numbers.plural(len(groups.groups), 'group')}",
        *mends(groups.model),
        "",
        *_groups(groups.groups, times or {}, members=members),
    ]
    if groups.barriers:
        lines += ["", *_barriers(groups.barriers, total, members=members)]
    return lines


def _groups(groups: Sequence[Group], times: Mapping[str, GroupTime], *, members: bool) -> list[str]:
    header = ("group", "kind", "units", "removal", "params", "MACs", "weights")
    timed = ("time", "half saves", "round to") if times else ()
    rows = [
        (
            group.name,
            group.kind,
            f"{group.units:,}",
            "exact" if group.exact else "approximate",
            numbers.count(group.params),
            numbers.count(group.macs),
            f"{len(group.members):,}",
            *(_time(times[group.name]) if times else ()),
        )
        for group in groups
    ]
    lines = table((*header, *timed), rows, ("units", "params", "MACs", "weights", *timed))
    if not members:
        return lines
    detailed = lines[:1]
    for line, group in zip(lines[1:], groups, strict=True):
        detailed.append(line)
        detailed += [f"    approximate: {group.approximate}"] if group.approximate else []
        detailed += [f"    {m.tensor} axis {m.axis}: {m.positions} of {m.size}" for m in group.members]
        detailed += [f"    {name} axis {axis} (of the graph)" for name, axis in group.io]
    return detailed


def _time(of: GroupTime) -> tuple[str, str, str]:
    return numbers.duration(of.seconds), numbers.duration(of.saved), str(of.multiple)


def _barriers(barriers: Sequence[Barrier], total: int, *, members: bool) -> list[str]:
    rows = [
        (numbers.percent(b.params, total), numbers.count(b.params), reason(b), _some(b.members, members))
        for b in barriers
    ]
    return table(("locked", "params", "barrier", "of"), rows, ("locked", "params"))


def _some(members: Sequence[tuple[str, int, int]], every: bool) -> str:
    names = list(dict.fromkeys(tensor for tensor, _, _ in members))
    shown = names if every else names[:2]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


# --- ops --------------------------------------------------------------------------------------------------


def operator_lines(rules: Sequence[Rule]) -> list[str]:
    """The table of operators that are traced."""
    rows = [(f"{r.domain}.{r.op}" if r.domain else r.op, opsets(r), r.family, r.summary, follows(r)) for r in rules]
    return table(("operator", "opsets", "family", "how channels go through", "what follows"), rows)


def barriers_of(whole: Mapping[str, str]) -> list[str]:
    """The table of operators that nothing can be removed through."""
    return table(("stays whole", "why"), list(whole.items()))
