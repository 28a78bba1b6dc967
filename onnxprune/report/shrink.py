"""What shrinking a model gave, as lines of text and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data, numbers
from onnxprune.report.text import costs, entry, locked, table

if TYPE_CHECKING:
    from onnxprune.layers import Mask
    from onnxprune.pipelines.shrink import Shrunk
    from onnxprune.proof import Verdict
    from onnxprune.typing import Ranges

# Zeros that are worth a word: this share of all elements.
MANY = 0.05


def lines(of: Shrunk) -> list[str]:
    """The account of one run: costs, what went and why, what stays and why, and the proof."""
    made = [*costs(of.before, of.after), ""]
    made += _removed(of) if of.removed else ["no unit is dead"]
    made += [*_dead(of.dead), *_stays(of.stays), *_range(of.ranges), *_mask(of.mask)]
    if of.verdict is not None:
        made.append(entry("proof", proof_of_equality(of.verdict)))
    return made + locked(of.groups)


def proof_of_equality(of: Verdict) -> str:
    """What was proven, and on what."""
    if not of.ok:
        return f"failed: {of.problem}"
    return f"equal to {' and '.join(of.checks[2:])}, largest error {of.error:.2g} (tolerance {of.tolerance:.1e})"


def _removed(of: Shrunk) -> list[str]:
    """A row per group, a column per cause."""
    causes = [cause for cause in _causes() if any(part.cause == cause for part in of.removed)]
    counted = Counter[tuple[str, str]]()
    for part in of.removed:
        counted[part.group, part.cause] += part.units
    units = {group.name: len(group.classes) for group in of.groups.groups}
    names = list(dict.fromkeys(part.group for part in of.removed))
    rows = [
        (name, str(units.get(name, "-")), *(str(counted[name, cause] or "-") for cause in causes)) for name in names
    ]
    header = ("group", "units", *causes)
    told = [f"{cause}: {_causes()[cause]}" for cause in causes]
    return [*table(header, rows, header[1:]), "", *told]


def _causes() -> Mapping[str, str]:
    from onnxprune.criteria import CAUSES

    return CAUSES


def _dead(of: Mapping[str, int]) -> list[str]:
    parts = [f"{count} {name}" for name, count in of.items() if count]
    return [entry("dead", f"{' and '.join(parts)} that no output depends on")] if parts else []


def _stays(of: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        entry("stays", f"{numbers.plural(count, 'unit')} of {group}: {why}")
        for group, reasons in of.items()
        for why, count in reasons.items()
    ]


def _range(of: Ranges) -> list[str]:
    ranges = [f"{name} from {low:g} to {high:g}" for name, (low, high) in of.items()]
    return [entry("range", f"equal for {', '.join(ranges)} only; written into the model")] if ranges else []


def _mask(of: Mask) -> list[str]:
    """What is not found: zeros that lie across units."""
    if of.share < MANY:
        return []
    rows = f", {of.rows / of.zeros:.0%} of them in whole rows that other weights keep alive" if of.rows else ""
    return [
        entry("zeros", f"{of.share:.0%} of the weights are zero, but lie across units that are not dead{rows};"),
        entry("", "`onnxprune prune --ratio` removes whole units, at a loss"),
    ]


def document(of: Shrunk) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "before": data.cost(of.before),
        "after": data.cost(of.after),
        "removed": [asdict(part) | {"positions": list(part.positions)} for part in of.removed],
        "dead": {name: of.dead.get(name, 0) for name in ("nodes", "initializers")},
        "stays": [
            {"group": group, "reason": why, "units": count}
            for group, reasons in of.stays.items()
            for why, count in reasons.items()
        ],
        "rounds": of.rounds,
        "input_range": {name: list(ends) for name, ends in of.ranges.items()},
        "zeros": asdict(of.mask) | {"share": of.mask.share},
        "barriers": [data.barrier(b) for b in of.groups.barriers],
        "proof": None if of.verdict is None else data.verdict(of.verdict),
        "seconds": {stage: round(value, 4) for stage, value in of.seconds.items()},
    }
