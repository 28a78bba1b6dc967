"""Prune every shared graph and trained model, prove the result, and write down what came out.

    python -m tests.measure.coverage [--jobs 2] [--json results.json] [--write docs/coverage.md] [GLOB ...]

Each one is pruned at ratio 0.5 with proof, in a process of its own with a time limit. Beside the product's own
proof, the written file is looked at again: ONNX's full checker and strict shape inference on the file, a run in
ONNX Runtime with all its optimisations on, and, where everything that was removed is exact, equality with the
original whose removed weights are set to zero (`apply --zero`), which knows nothing of the masked reference.
With --json, results of earlier runs are kept for the graphs that this run leaves out.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from tests.graphs import shared
from tests.measure.coverage_locks import account

RATIO = 0.5
TIMEOUT_S = 900
MEMORY_BYTES = 12 << 30
MARK = "@result "
CLASSES_OF_OPS: Mapping[str, frozenset[str]] = {
    "control flow": frozenset(("If", "Loop", "Scan", "SequenceMap")),
    "quantised": frozenset(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger")
    )
    | {"ConvInteger"},
}
FAILED = ("failed", "rolled back", "error", "timeout", "invalid", "not finite")

Result = dict[str, Any]


# --- the worker: one graph, in a process of its own -------------------------------------------------------


def examine(entry: shared.Entry) -> Result:
    """Prune one graph with proof and describe the outcome."""
    from onnxprune.model import load

    start = time.perf_counter()
    with shared.materialised(entry) as path, TemporaryDirectory(prefix="onnxprune-cov-") as scratch:
        result: Result = {"graph": entry.name, "exporter": entry.exporter}
        begin = time.perf_counter()
        model = load(path)
        result |= describe(model.proto)
        result["bytes_before"] = file_size(path)
        result |= pruned(entry, model, Path(scratch) / "pruned.onnx")
        result["seconds"] = round(time.perf_counter() - begin, 2)
    result["total_seconds"] = round(time.perf_counter() - start, 2)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return result


def describe(proto: onnx.ModelProto) -> Result:
    """What the graph is."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    return {"opset": opset, "nodes": len(proto.graph.node), "scope": sorted(unusual(proto))}


def unusual(proto: onnx.ModelProto) -> set[str]:
    """Kinds of operators that this version treats as barriers."""
    local = {(f.domain, f.name) for f in proto.functions}
    found: set[str] = set()
    for node in [*nodes_of(proto.graph), *(n for f in proto.functions for n in f.node)]:
        if node.domain in ("", "ai.onnx"):
            found.update(kind for kind, ops in CLASSES_OF_OPS.items() if node.op_type in ops)
            if not onnx.defs.has(node.op_type):
                found.add(f"not in ONNX ({node.op_type})")
        elif node.domain == "ai.onnx.ml":
            found.add("classical (ai.onnx.ml)")
        elif (node.domain, node.op_type) not in local:
            quantised = "QLinear" in node.op_type or "NBits" in node.op_type or "Quantize" in node.op_type
            found.add("quantised" if quantised else f"fused ({node.domain})")
    return found


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from nodes_of(inner)


def file_size(path: Path) -> int:
    """Bytes of a model file and of its external data."""
    model = onnx.load(path, load_external_data=False)
    places = {
        e.value
        for t in model.graph.initializer
        if t.data_location == onnx.TensorProto.EXTERNAL
        for e in t.external_data
        if e.key == "location"
    }
    return path.stat().st_size + sum((path.parent / p).stat().st_size for p in places)


def pruned(entry: shared.Entry, model: Any, target: Path) -> Result:
    """Prune, prove, write and look again."""
    from onnxprune import api
    from onnxprune.allocation import Options
    from onnxprune.errors import GoalMissed
    from onnxprune.model import save
    from onnxprune.tracing import trace

    try:
        outcome = api.run(model, Options(ratio=RATIO))
    except GoalMissed as missed:
        groups = trace(model)
        status = "nothing" if "nothing can be pruned" in str(missed) else "failed"
        return {"status": status, "problem": first_line(missed)} | account(groups)
    verdict = outcome.verdict
    assert verdict is not None
    result: Result = {
        "params": [outcome.before.params, outcome.after.params],
        "macs": [outcome.before.macs, outcome.after.macs],
        "error": None if math.isnan(verdict.error) else verdict.error,
        "tolerance": verdict.tolerance,
        "rolled_back": [[r.group, r.problem[:300]] for r in outcome.rolled_back],
        "stages": {k: round(v, 3) for k, v in outcome.seconds.items()},
        "problem": verdict.problem[:500],
    } | account(outcome.groups)
    save(outcome.model, target)
    result["bytes_after"] = file_size(target)
    result["status"] = status_of(verdict, outcome.rolled_back)
    result |= looked_at_again(entry, model, outcome, target)
    return result


def status_of(verdict: Any, rolled_back: Sequence[Any]) -> str:
    """One word for the outcome."""
    if not verdict.ok:
        return "unrunnable" if "original does not run" in verdict.problem else "failed"
    return "rolled back" if rolled_back else "proven"


def looked_at_again(entry: shared.Entry, model: Any, outcome: Any, target: Path) -> Result:
    """Checks of the written file that do not use the product's own proof."""
    found: Result = {}
    complaint = complaint_about(target)
    if complaint and not complaint_about(entry.path):
        found |= {"status": "invalid", "problem": complaint}
    feeds = shared.sample_inputs(entry.path.stem) if entry.trained else []
    for feed in feeds:
        wanted = finite(run(str(entry.path), feed))
        if wanted and not finite(run(str(target), feed)):
            found |= {"status": "not finite", "problem": "an output on sample inputs is not finite"}
    found["samples"] = len(feeds)
    if outcome.verdict.ok:
        found |= compared(model, outcome, target)
        if outcome.after.params >= outcome.before.params:
            found["problem"] = "not smaller"
    return found


def complaint_about(path: Path) -> str:
    """What ONNX's own tools say against a file; empty for nothing."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        light = onnx.load(path)
        if light.ByteSize() < 1 << 30:
            onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # noqa: BLE001 - whatever they raise is the finding
        return first_line(error)
    return ""


def run(path: str, feeds: Mapping[str, np.ndarray]) -> list[Any]:
    """Outputs with all of ONNX Runtime's optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def finite(outputs: Sequence[Any]) -> bool:
    """Whether every float output is finite."""
    arrays = [np.asarray(o) for o in outputs]
    return all(np.isfinite(a.astype(np.float64)).all() for a in arrays if a.dtype.kind == "f")


def compared(model: Any, outcome: Any, target: Path) -> Result:
    """How far the outputs moved from the original's, and differ from those of the original with zeroed weights."""
    from onnxprune import api
    from onnxprune.model import save
    from onnxprune.model.shapes.infer import infer
    from onnxprune.model.shapes.symbols import candidate_sizes, symbolic_dims
    from onnxprune.proof.compare_outputs import difference
    from onnxprune.runtime.random_inputs import random_feeds

    if model.nbytes > 700 << 20:
        return {}
    original = target.with_name("original.onnx")
    save(model, original)
    try:
        feeds = random_feeds(model, outcome.groups.static, np.random.default_rng(5))
        before = run(str(original), feeds)
    except Exception:  # noqa: BLE001 - ONNX Runtime's own; at these sizes the original does not run
        sizes = next(
            s
            for s, _ in candidate_sizes(symbolic_dims(model.proto.graph), {})
            if runs(original, model, infer(model, s))
        )
        feeds = random_feeds(model, infer(model, sizes), np.random.default_rng(5))
        before = run(str(original), feeds)
    original.unlink()
    made = run(str(target), feeds)

    def against(outputs: Sequence[Any]) -> float:
        pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(outputs, made, strict=True)]
        return max((difference(a, b) for a, b in pairs if a.dtype.kind != "O"), default=0.0)  # no maps, no strings

    found: Result = {"moved": against(before)}
    exact = {g.name for g in outcome.groups.groups if g.exact}
    if all(step.group in exact for step in outcome.plan.steps):
        zeroed = target.with_name("zeroed.onnx")
        save(api.execute(model, outcome.plan, zero=True).model, zeroed)
        found["zeroed_error"] = against(run(str(zeroed), feeds))
    return found


def runs(path: Path, model: Any, static: Any) -> bool:
    """Whether a model runs at the sizes in `static`."""
    from onnxprune.runtime.random_inputs import random_feeds

    try:
        run(str(path), random_feeds(model, static, np.random.default_rng(5)))
    except Exception:  # noqa: BLE001 - ONNX Runtime raises its own unrelated types
        return False
    return True


def first_line(error: BaseException) -> str:
    """The error's type and the start of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:500]


# --- the parent -------------------------------------------------------------------------------------------


def work(name: str) -> None:
    """Examine one graph and print the result as a line."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    entry = shared.entry(name)
    try:
        result = examine(entry)
    except Exception as error:  # noqa: BLE001 - any exception is a finding
        import traceback

        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
        described: Result = {}
        if entry.path.is_file():
            described = describe(onnx.load(entry.path, load_external_data=False))
        result = {"graph": name, "exporter": entry.exporter} | described
        result |= {"status": "error", "problem": first_line(error), "where": where}
    print(MARK + json.dumps(result), flush=True)


def prune_one(name: str, timeout: int = TIMEOUT_S) -> Result:
    """Examine one graph in a process of its own."""
    command = [sys.executable, "-m", "tests.measure.coverage", "--worker", name]
    base: Result = {"graph": name, "exporter": shared.entry(name).exporter}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=Path(__file__).resolve().parents[2],
        )
    except subprocess.TimeoutExpired:
        return base | {"status": "timeout", "problem": f"not finished after {timeout} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        return json.loads(lines[-1].removeprefix(MARK))
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return base | {"status": "error", "problem": f"the process ended with {done.returncode}: {last}"[:500]}


def line_of(result: Result) -> str:
    """One result as a line of a log."""
    text = f"{result['graph']:<44} {result['status']:<11}"
    if "error" in result and result["error"] is not None:
        text += f" err {result['error']:.1e}"
    if result.get("zeroed_error") is not None:
        text += f" zero {result['zeroed_error']:.1e}"
    if result.get("moved") is not None:
        text += f" moved {result['moved']:.1e}"
    if "weights" in result:
        text += f" groups {result['groups']} held {percent(result['held'], result['weights'])}"
        text += f" whole {len(result['untouched'])}"
    if "params" in result:
        text += f" params {ratio(result['params'])} macs {ratio(result['macs'])}"
    text += f" {result.get('seconds', '?')} s {result.get('peak_mib', '?')} MiB"
    return f"{text} {','.join(result.get('scope', []))} {result.get('problem', '')}".rstrip()


def percent(part: float, whole: float) -> str:
    """A share for people."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def ratio(pair: Sequence[float]) -> str:
    """After over before."""
    return f"{pair[1] / pair[0]:.2f}" if pair[0] else "-"


def sweep(names: Sequence[str], jobs: int, store: Path | None) -> dict[str, Result]:
    """Examine `names`; results of earlier runs in `store` are kept for the others."""
    results: dict[str, Result] = {}
    if store and store.is_file():
        results = json.loads(store.read_text(encoding="utf-8"))
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(prune_one, names):
            results[result["graph"]] = result
            print(line_of(result), flush=True)
            if store:
                store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("globs", nargs="*", help="names such as 'ts/tv_*'; everything if none is given")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument("--json", type=Path, help="file with all results, updated by every run")
    parser.add_argument("--write", type=Path, help="file to write the table to")
    parser.add_argument("--only-write", action="store_true", help="write the table from --json, run nothing")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker)
        return 0
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    names = [] if options.only_write else [e.name for e in shared.entries(*options.globs)]
    if not names and not options.only_write:
        parser.error("no graph matches")
    results = sweep(names, options.jobs, options.json)
    if options.write:
        from tests.measure.coverage_table import table

        options.write.write_text(table(results), encoding="utf-8")
    return 1 if any(results[n]["status"] in FAILED for n in names) else 0


if __name__ == "__main__":
    sys.exit(main())
