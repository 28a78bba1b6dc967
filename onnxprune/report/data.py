"""Results as plain data: what `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.cost.counts import branches_taken
from onnxprune.report.exchanges import exchange_data
from onnxprune.report.together import together_data
from onnxprune.report.training import training_data

if TYPE_CHECKING:
    from onnxprune.allocation.timed import GroupTime
    from onnxprune.cost import Cost
    from onnxprune.cost.counts import LayerCost
    from onnxprune.cost.latency import Timed
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.proof import Strength, Verdict
    from onnxprune.recovery import RecoveryReport
    from onnxprune.rewriting import Plan
    from onnxprune.rewriting.io_changes import Change, RowMap
    from onnxprune.rewriting.plan import Step
    from onnxprune.runtime import Agreement
    from onnxprune.runtime.bench import Result
    from onnxprune.runtime.paired_timing import TimeRatio
    from onnxprune.tracing import Barrier, Group, Groups
    from onnxprune.tracing.rules import Rule

VERSION = 1


def header(kind: str) -> dict[str, Any]:
    """What every document starts with."""
    return {"format": f"onnxprune-{kind}", "version": VERSION}


def cost(of: Cost, *, layers: bool = False) -> dict[str, Any]:
    """What a model costs."""
    plain: dict[str, Any] = {"params": of.params, "macs": of.macs, "bytes": of.size}
    return plain | {"layers": [layer(x) for x in of.layers]} if layers else plain


def layer(of: LayerCost) -> dict[str, Any]:
    """What a layer costs."""
    return {
        "name": of.name,
        "op": of.op,
        "weight": of.weight,
        "shape": list(of.shape),
        "width": of.width,
        "params": of.params,
        "macs": of.macs,
    }


def verdict(of: Verdict) -> dict[str, Any]:
    """What the proof found; an error that could not be measured, or is infinite, is null."""
    return {
        "ok": of.ok,
        "error": _numbers(of.error),
        "tolerance": of.tolerance,
        "problem": of.problem,
        "outputs": _numbers(dict(of.outputs)),
        "checks": list(of.checks),
        "inside": _numbers(dict(of.inside)),
        "strength": None if of.strength is None else _strength(of.strength),
    }


def _strength(of: Strength) -> dict[str, Any]:
    """What a proof would notice."""
    return {"noticed": of.noticed, "tried": of.tried, "groups": of.groups, "unnoticed": of.unnoticed}


def _numbers(value: Any) -> Any:
    """Plain values, with None for infinity and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def outcome_json(result: Outcome) -> dict[str, Any]:
    """The account of one run."""
    return {
        "options": dict(result.plan.options),
        "before": cost(result.before),
        "after": cost(result.after),
        "mended": list(result.groups.model.mended),
        "groups": steps_json(result.plan),
        "rotated": [step.group for step in result.plan.rotations],
        "dropped": together_data(result),
        "exchanges": exchange_data(result),
        "barriers": [barrier(b) for b in result.groups.barriers],
        "branches": [asdict(branches) for branches in branches_taken(result.groups.tracing)],
        "budgets": [asdict(goal) | {"met": goal.met} for goal in result.goals],
        "time": None if result.timed is None else timed_json(result.timed),
        "io_changes": io_changes_json(result.io_changes),
        "rows": rows_json(result.rows),
        "rolled_back": [{"group": r.group, "problem": r.problem} for r in result.rolled_back],
        "proof": None if result.verdict is None else verdict(result.verdict),
        "repair": None if result.recovery is None else recovery_json(result.recovery),
        "fine_tuned_by": result.tuned or None,
        "choosing": None if result.chosen is None else training_data(result.chosen),
        "training": None if result.training is None else training_data(result.training),
        "damage": ruin(result.judged),
        "seconds": {stage: round(value, 4) for stage, value in result.seconds.items()},
    }


def recovery_json(of: RecoveryReport) -> dict[str, Any]:
    """What calibration data recovered, by layer and by group; what could not be measured is null."""
    damage = [{"group": name, "before": b, "after": a} for name, (b, a) in of.damage.items()]
    found: dict[str, Any] = _numbers(asdict(of) | {"damage": damage})
    return found


def ruin(of: Agreement | None) -> dict[str, Any] | None:
    """Whether the outputs on held-out samples have anything to do with the original's, after all repair."""
    return None if of is None or not of.is_known else {"ruined": bool(of.ruin), "why": of.ruin}


def io_changes_json(of: Sequence[Change]) -> list[dict[str, Any]]:
    """The axes of inputs and outputs that shrank."""
    return [asdict(change) for change in of]


def rows_json(of: Sequence[RowMap]) -> list[dict[str, Any]]:
    """The rows that were kept by name: the place of an old number in `kept` is the new one."""
    return [{"name": m.name, "size": m.size, "inputs": list(m.inputs), "kept": list(m.kept)} for m in of]


def row_file(of: Sequence[RowMap]) -> dict[str, Any]:
    """What is written beside a model whose rows were renumbered: old number -> new number."""
    return header("rows") | {
        "rows": {
            m.name: {"size": m.size, "inputs": list(m.inputs), "new": {str(old): new for new, old in enumerate(m.kept)}}
            for m in of
        }
    }


def steps_json(plan: Plan) -> list[dict[str, Any]]:
    """Every group, with how many of its units go."""
    return [
        {
            "name": s.group,
            "kind": s.kind,
            "exact": s.exact,
            "approximate": s.approximate,
            "units": s.units,
            "removed": removed_units(s),
        }
        for s in plan.steps
    ]


def removed_units(step: Step) -> int:
    """How many units a step removes."""
    return len(set(step.remove)) * step.units // step.size


# --- inspect ----------------------------------------------------------------------------------------------


def inspection_json(groups: Groups, of: Cost, times: Mapping[str, GroupTime] | None = None) -> dict[str, Any]:
    """Groups and barriers of a model."""
    held, total = groups.prunable
    return {
        "cost": cost(of),
        "prunable": {"params": held, "of": total},
        "mended": list(groups.model.mended),
        "groups": [group(g) | ({"time": asdict(times[g.name])} if times else {}) for g in groups.groups],
        "barriers": [barrier(b) for b in groups.barriers],
    }


def group(of: Group) -> dict[str, Any]:
    """A group with its members."""
    return {
        "name": of.name,
        "kind": of.kind,
        "exact": of.exact,
        "approximate": of.approximate,
        "units": of.units,
        "params": of.params,
        "macs": of.macs,
        "members": [{"tensor": m.tensor, "axis": m.axis, "size": m.size, "positions": m.positions} for m in of.members],
        "io": [{"tensor": name, "axis": axis} for name, axis in of.io],
    }


def barrier(of: Barrier) -> dict[str, Any]:
    """A reason and what it locks."""
    return {
        "reason": of.reason,
        "node": of.node,
        "op": of.op,
        "params": of.params,
        "members": [{"tensor": t, "axis": a, "positions": n} for t, a, n in of.members],
    }


# --- ops --------------------------------------------------------------------------------------------------


def operator(rule: Rule) -> dict[str, Any]:
    """How one operator is traced."""
    from onnxprune.tracing import NEWEST_OPSET

    return {
        "op": rule.op,
        "domain": rule.domain,
        "since": rule.since,
        "until": None if rule.until >= NEWEST_OPSET else rule.until,
        "family": rule.family,
        "summary": rule.summary,
        "follows": follows(rule),
    }


def opsets(rule: Rule) -> str:
    """The opset versions that a rule holds for: `7-12`, `13+`."""
    from onnxprune.tracing import NEWEST_OPSET

    return f"{rule.since}+" if rule.until >= NEWEST_OPSET else f"{rule.since}-{rule.until}"


def follows(rule: Rule) -> str:
    """What the rule edits beside the weights: the first line of the docstring of its `resize`."""
    text = (rule.resize.__doc__ or "its sizes").strip() if rule.resize else ""
    return text.splitlines()[0].rstrip(".").replace("`", "") if text else ""


def timed_json(of: Timed) -> dict[str, Any]:
    """The time of a run in seconds before and after, the share that is left, the expected damage, and where."""
    return {
        "before": of.before,
        "after": of.after,
        "ratio": ratio_json(of.ratio),
        "predicted": of.predicted,
        "predicted_damage": of.damage,
        "provider": of.place.setting.provider,
        "threads": of.place.setting.threads,
    }


def ratio_json(of: TimeRatio) -> dict[str, Any]:
    """How two times compare."""
    return {"value": of.value, "low": of.low, "high": of.high, "differs": not of.is_noise}


def benched_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What models take; times in seconds, sizes in bytes."""
    return [
        {
            "name": r.name,
            "inputs": {name: list(shape) for name, shape in r.shapes.items()},
            "bytes": r.size,
            "memory": r.memory,
            "timings": [
                {
                    "batch": t.batch,
                    "median": t.median,
                    "p95": t.p95,
                    "runs": t.runs,
                    "throughput": t.throughput,
                    "ratio": ratio_json(t.ratio),
                    "energy": None if t.energy is None else asdict(t.energy),
                }
                for t in r.timings
            ],
        }
        for r in results
    ]
