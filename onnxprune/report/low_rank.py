"""What making products of weights gave, as lines of text and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data, numbers
from onnxprune.report.sparsify import agreement_data, agreement_text, speed_data, speed_text
from onnxprune.report.text import budgets, costs, entry, table

if TYPE_CHECKING:
    from onnxprune.pipelines.low_rank import Factorised
    from onnxprune.proof import Verdict
    from onnxprune.rewriting import Plan

# Weights that the account names.
MOST = 8


def low_rank_lines(of: Factorised) -> list[str]:
    """The account of one run.

    Args:
        of: what was done.

    Returns:
        Lines of text.
    """
    lines = costs(of.before, of.after)
    lines += [f"{'file':<7}  {numbers.bytes_text(of.sizes[0])} -> {numbers.bytes_text(of.sizes[1])}", ""]
    ranked = sorted(of.weights, key=lambda w: w.elements[1] - w.elements[0])
    rows = [
        (w.name, w.op, _times(w.shape), w.form, _times(w.ranks), numbers.change(*w.elements), f"{w.lost:.1%}")
        for w in ranked[:MOST]
    ]
    header = ("weight", "operator", "sizes", "form", "rank", "change", "lost")
    lines += [*table(header, rows, header[4:]), *([f"and {len(ranked) - MOST} more"] if len(ranked) > MOST else []), ""]
    whys = Counter(of.left.values())
    lines += [entry("whole", f"{numbers.plural(count, 'weight')}: {why}") for why, count in whys.items()]
    lines += budgets(of.goals)
    if of.verdict is not None:
        lines.append(entry("proof", _proof(of.verdict)))
    if of.judged is not None:
        fitted = sum(w.refitted for w in of.weights)
        both = f"{agreement_text(of.plain)} as products alone, " if of.plain is not None and fitted else ""
        told = f"{agreement_text(of.judged)}{' fitted' if fitted else ''} on held-out samples"
        lines.append(entry("outputs", f"{both}{told}"))
    return lines + ([entry("speed", speed_text(of.speed))] if of.speed is not None else [])


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _proof(of: Verdict) -> str:
    if not of.ok:
        return f"failed: {of.problem}"
    found = of.strength
    noticed = (
        ""
        if found is None
        else f"; of {numbers.plural(found.tried, 'error')} planted in factors, a run noticed {found.noticed}"
    )
    error = f"largest error {numbers.error(of.error)} (tolerance {numbers.error(of.tolerance)})"
    return f"before any fit equal to the original with projected weights, {error}{noticed}"


def factor_lines(plan: Plan) -> list[str]:
    """How many weights a plan makes products of; nothing where it makes none."""
    if not plan.factors:
        return []
    ranks = sorted(step.rank for step in plan.factors)
    return [entry("products", f"{numbers.plural(len(ranks), 'weight')}, ranks {ranks[0]} to {ranks[-1]}")]


def low_rank_data(of: Factorised) -> dict[str, Any]:
    """The account of one run as plain data.

    Args:
        of: what was done.

    Returns:
        What `--json` prints.
    """
    return {
        "options": dict(of.plan.options),
        "before": data.cost(of.before) | {"file": of.sizes[0]},
        "after": data.cost(of.after) | {"file": of.sizes[1]},
        "weights": [
            asdict(w) | {n: list(getattr(w, n)) for n in ("shape", "ranks", "elements")} | {"rank": w.rank}
            for w in of.weights
        ],
        "left": [{"tensor": name, "why": why} for name, why in of.left.items()],
        "budgets": [asdict(goal) | {"met": goal.met} for goal in of.goals],
        "proof": None if of.verdict is None else data.verdict(of.verdict),
        "plain": agreement_data(of.plain),
        "outputs": agreement_data(of.judged),
        "damage": data.ruin(of.judged),
        "speed": None if of.speed is None else speed_data(of.speed),
        "seconds": {stage: round(value, 4) for stage, value in of.seconds.items()},
    }
