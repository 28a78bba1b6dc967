"""MACs against those that onnx-tool counts: the oracle of docs/budgets.md.

    pip install onnx-tool
    python -m tests.measure.macs [GLOB ...] [--write docs/budgets.md]

Needs the folder of shared graphs (see tests/graphs/shared.py). Compared are contractions, node by node, for one sample:
onnx-tool adds the bias to a layer's MACs, and counts what is no contraction, too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.cost import counts
from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from onnxprune.model.shapes.symbols import symbolic_dims
from tests.graphs import shared


@dataclass(frozen=True)
class Comparison:
    """One graph.

    Attributes:
        graph: its name.
        same: contractions with the same count, up to the bias.
        other: operator -> contractions with another count.
        unknown: contractions that onnx-tool says nothing of.
        problem: why nothing could be compared; empty if it could.
    """

    graph: str
    same: int = 0
    other: Mapping[str, int] | None = None
    unknown: int = 0
    problem: str = ""


def compare(name: str) -> Comparison:
    """Count with both."""
    with shared.materialised(shared.entry(name)) as path:
        model = load(str(path))
        batch = {s: 1 for s, use in symbolic_dims(model.proto.graph).items() if use.axis == 0}
        static = infer(model, batch)
        ours = {layer.name: layer for layer in counts.of(model).layers}
        try:
            theirs = _profiled(path, {v.name: (static.shapes[v.name], v) for v in model.proto.graph.input})
        except Exception as error:  # noqa: BLE001 (whatever a stranger's code raises is a graph that it cannot count)
            return Comparison(name, problem=f"onnx-tool fails: {type(error).__name__}")
    outputs = {n.name: static.shapes.get(n.output[0], ()) for n in model.proto.graph.node if n.name}
    same, unknown, other = 0, 0, Counter[str]()
    for node, layer in ours.items():
        if node not in theirs:
            unknown += 1
        elif layer.macs in (theirs[node], theirs[node] - int(np.prod(outputs[node], dtype=np.int64))):
            same += 1
        else:
            other[layer.op] += 1
    return Comparison(name, same, dict(other), unknown)


def _profiled(path: Path, inputs: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, int]:
    import onnx_tool
    from onnx import helper

    with contextlib.redirect_stdout(io.StringIO()):
        graph = onnx_tool.Model(str(path)).graph
        feeds = {
            name: np.zeros(shape, helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for name, (shape, value) in inputs.items()
            if name in graph.input
        }
        graph.shape_infer(feeds)
        graph.profile()
    return {name: int(np.reshape(node.macs, -1)[0]) for name, node in graph.nodemap.items()}


def table(found: list[Comparison]) -> str:
    """What the page says."""
    counted = [c for c in found if not c.problem]
    nodes = sum(c.same + sum((c.other or {}).values()) for c in counted)
    lines = [f"{sum(c.same for c in counted):,} of {nodes:,} contractions of {len(counted)} graphs count the same.", ""]
    lines += ["| graph | same | other | not in onnx-tool |", "|---|---|---|---|"]
    for c in counted:
        if c.other or c.unknown:
            other = ", ".join(f"{n} {op}" for op, n in (c.other or {}).items())
            lines.append(f"| {c.graph} | {c.same} | {other} | {c.unknown or ''} |")
    failed = Counter(c.problem for c in found if c.problem)
    lines += ["", *(f"{problem} on {count} graphs." for problem, count in failed.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("globs", nargs="*")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    found = []
    for entry in shared.entries(*given.globs):
        found.append(compare(entry.name))
        print(found[-1], flush=True)
    text = table(found)
    print(text)
    if given.write:
        page = given.write.read_text(encoding="utf-8")
        page = re.sub(r"(?s)(<!-- macs -->\n).*?(?=\n## |\Z)", lambda start: start[1] + text, page)
        given.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
