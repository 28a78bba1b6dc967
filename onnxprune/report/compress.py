"""What compressing a model gave, as lines of text and as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data, numbers
from onnxprune.report.shrink import proof_of_equality
from onnxprune.report.sparsify import speed_data, speed_text
from onnxprune.report.text import entry, mends, table

if TYPE_CHECKING:
    from onnxprune.pipelines.compress import Compressed, ExactStage

# Folded nodes that the account names.
MOST = 3


def compress_lines(of: Compressed) -> list[str]:
    """The account of one run.

    Args:
        of: what was done.

    Returns:
        Lines of text.
    """
    rows = [
        ("params", *map(numbers.count, (of.before.params, of.after.params))),
        ("MACs", *map(numbers.count, (of.before.macs, of.after.macs))),
        ("nodes", *map(str, of.nodes)),
        ("file", *map(numbers.bytes_text, of.sizes)),
    ]
    pairs = ((of.before.params, of.after.params), (of.before.macs, of.after.macs), of.nodes, of.sizes)
    told = [(*row, numbers.change(*pair)) for row, pair in zip(rows, pairs, strict=True)]
    lines = [*table(("", "before", "after", "change"), told, ("before", "after", "change")), ""]
    lines += mends(of.groups.model)
    lines += [line for stage in of.stages for line in _stage(stage, of)]
    lines += [] if of.changed else ["nothing is left to take out"]
    if of.verdict is not None:
        lines.append(entry("proof", proof_of_equality(of.verdict)))
    lines += [entry("speed", speed_text(of.speed))] if of.speed is not None else []
    return lines


def _stage(stage: ExactStage, of: Compressed) -> list[str]:
    if stage.left:
        return [entry("left", f"not {stage.name}: {stage.left}")]
    nodes, size = stage.nodes[0] - stage.nodes[1], stage.sizes[0] - stage.sizes[1]
    saved = [numbers.plural(nodes, "node")] if nodes else []
    saved += [numbers.bytes_text(size)] if size else []
    return [entry("exact", f"{stage.name}: {', '.join(saved)} less")]


def compress_data(of: Compressed) -> dict[str, Any]:
    """The account of one run as plain data.

    Args:
        of: what was done.

    Returns:
        What `--json` prints.
    """
    return {
        "before": data.cost(of.before) | {"nodes": of.nodes[0], "file": of.sizes[0]},
        "after": data.cost(of.after) | {"nodes": of.nodes[1], "file": of.sizes[1]},
        "mended": list(of.groups.model.mended),
        "exact": [asdict(stage) | {"nodes": list(stage.nodes), "sizes": list(stage.sizes)} for stage in of.stages],
        "folded": [asdict(fold) for fold in of.folds],
        "proof": None if of.verdict is None else data.verdict(of.verdict),
        "speed": None if of.speed is None else speed_data(of.speed),
        "seconds": {stage: round(value, 4) for stage, value in of.seconds.items()},
    }
