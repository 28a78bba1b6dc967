"""Gradients beside those of other tools, on ONNX's own operator tests: the table in docs/gradients.md.

    python -m tests.measure.gradient_peers --python PEERS/bin/python [--write] [GLOB ...]

PEERS is an environment of its own with `pip install onnx-ad==0.3.0 onnxsim onnxruntime`. A case is a test whose
gradient is exact by finite differences (`python -m tests.measure.gradients`), under the newest definition of its
operator and under the newest one up to opset 17; a peer passes a test if it agrees with ours under either. The peers'
gradients are a second opinion on ours: where they differ, the finite differences decide.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import helper

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting
from tests.graphs.node_cases import NEWEST_IN_RUNTIME, NodeCase, all_cases, with_history
from tests.measure.gradients import case_model, examine
from tests.measure.gradients_table import PASSED

PEERS = ("onnx-ad", "onnxsim")
PAGE = Path(__file__).parents[2] / "docs" / "gradients.md"
OLD = 17
AGREES = 1e-3
RIGHT, DIFFERS, REFUSED = "agrees", "differs", "refused"


@dataclass(frozen=True)
class Compared:
    """What a peer makes of a test.

    Attributes:
        test: name of the test.
        operator: the operator.
        peer: the peer.
        status: one of the three.
        why: the refusal, or the difference.
    """

    test: str
    operator: str
    peer: str
    status: str
    why: str = ""


def cases(globs: Sequence[str]) -> Iterator[NodeCase]:
    """Tests that match, under up to two definitions each."""
    for newest in all_cases():
        if newest.node.domain or (globs and not any(fnmatch.fnmatchcase(newest.name, g) for g in globs)):
            continue
        known = [c for c in with_history(newest) if c.version <= NEWEST_IN_RUNTIME]
        yield from known[:1]
        yield from [c for c in known[1:] if c.version <= OLD][: int(known[0].version > OLD) if known else 0]


def write_case(case: NodeCase, path: Path) -> dict[str, np.ndarray] | None:
    """Write a case for the peers, and return our gradients; None where ours are not exact."""
    if examine(case).status != PASSED:
        return None
    model, feeds, parameters = case_model(case, np.random.default_rng(0))
    graph = build_vjp(Model(model), feeds, parameters=parameters)
    rng = np.random.default_rng(1)
    seeds = {n: rng.standard_normal(shape).astype(kind) for n, (shape, kind) in graph.targets.items()}
    with GradientSession(graph, Setting(threads=1)) as session:
        ours = dict(session.evaluate({**feeds, **seeds}, {}).gradients)
    if feeds or not all(np.isfinite(g).all() for g in ours.values()):  # texts and sequences; beyond a domain
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    with Session(Model(model), threads=1, optimised=False) as session_of_case:
        results = dict(zip(session_of_case.outputs, session_of_case.run({}), strict=True))
    del proto.graph.output[:]
    for name, array in results.items():
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
        proto.graph.output.append(helper.make_tensor_value_info(name, kind, np.shape(array)))
    for name, array in graph.parameters.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    kept = [t for t in proto.graph.initializer if t.name not in graph.parameters]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.opset_import[0].version = max(case.opset, OLD)
    onnx.save(proto, path)
    values = {f"x/{n}": a for n, a in graph.parameters.items()}
    values |= {f"dy/{n.removeprefix('gradient/')}": s for n, s in seeds.items()}
    np.savez(path.with_suffix(".npz"), **values)
    return ours


def compared(python: str, globs: Sequence[str]) -> tuple[list[tuple[str, str]], list[Compared]]:
    """The tests (with their operators) that ours pass, and what the peers make of them."""
    with TemporaryDirectory(prefix="onnxprune-peers-") as scratch:
        folder, known = Path(scratch), {}
        for number, case in enumerate(cases(globs)):
            ours = write_case(case, folder / f"{number}.onnx")
            if ours is not None:
                known[str(number)] = (case, ours)
        worker = Path(__file__).with_name("peer_gradients.py")
        for peer in PEERS:
            subprocess.run([python, str(worker), peer, scratch], check=True)
        rows = [
            judged(folder / f"{number}.{peer}", case, ours, peer)
            for number, (case, ours) in known.items()
            for peer in PEERS
        ]
    return sorted({(case.name, case.op) for case, _ in known.values()}), rows


def judged(stem: Path, case: NodeCase, ours: Mapping[str, np.ndarray], peer: str) -> Compared:
    """Compare a peer's gradients with ours."""
    refusal = Path(f"{stem}.txt")
    if refusal.is_file():
        return Compared(case.name, case.op, peer, REFUSED, refusal.read_text(encoding="utf-8"))
    with np.load(f"{stem}.npz") as theirs:
        apart = max(
            float(np.abs(theirs[n] - g).max(initial=0)) / max(float(np.abs(g).max(initial=0)), 1e-6)
            if theirs[n].shape == g.shape
            else np.inf
            for n, g in ours.items()
        )
    return Compared(case.name, case.op, peer, RIGHT if apart <= AGREES else DIFFERS, f"{apart:.1e}")


def table(tests: Sequence[tuple[str, str]], rows: Sequence[Compared]) -> str:
    """Tests and operators with right gradients, by tool."""
    best: dict[tuple[str, str], str] = {}
    order = (RIGHT, DIFFERS, REFUSED)
    for row in rows:
        key = row.peer, row.test
        best[key] = min(best.get(key, REFUSED), row.status, key=order.index)
    operators = {op for _, op in tests}
    lines = [
        "| | tests, right | operators, every test right | operators, some test right | tests that differ |",
        "|---|---|---|---|---|",
        f"| onnxprune | {len(tests)} | {len(operators)} | {len(operators)} | |",
    ]
    for peer in PEERS:
        by_op: dict[str, list[str]] = defaultdict(list)
        for test, op in tests:
            by_op[op].append(best[peer, test])
        right = sum(statuses.count(RIGHT) for statuses in by_op.values())
        every = sum(all(s == RIGHT for s in statuses) for statuses in by_op.values())
        some = sum(RIGHT in statuses for statuses in by_op.values())
        wrong = sorted({test for test, _ in tests if best[peer, test] == DIFFERS})
        lines.append(f"| {peer} | {right} | {every} | {some} | {len(wrong)} |")
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("globs", nargs="*", help="names of tests; all if none is given")
    parser.add_argument("--python", required=True, help="of the environment that has the peers")
    parser.add_argument("--write", action="store_true", help="write the table into docs/gradients.md")
    given = parser.parse_args()
    tests, rows = compared(given.python, given.globs)
    for row in rows:
        if row.status != RIGHT:
            print(row.peer, row.status, row.test, row.why, sep="\t")
    text = table(tests, rows)
    print(text)
    if given.write:
        pattern = re.compile("(<!-- peers -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(pattern.sub(lambda mark: f"{mark[1]}{text}\n{mark[2]}", page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
