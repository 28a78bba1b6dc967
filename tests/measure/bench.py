"""Measure onnxprune; docs/performance.md holds the tables that this prints.

    python -m tests.measure.bench core        # the stages against onnx.load + onnx.save of the same file
    python -m tests.measure.bench process     # the whole command against a process that only loads and saves
    python -m tests.measure.bench scaling     # nodes from 100 to 10,000, channels from 16 to 4,096
    python -m tests.measure.bench peers FILE  # beside the records of tests/measure/bench_torch_pruning.py
    python -m tests.measure.bench help        # `onnxprune --help`
    python -m tests.measure.bench memory      # a decoder of 4 GiB with external data

Times are the least of several runs, in the same process or alternating with what they are compared to; CPU time is
that of all threads. `core`, `process` and `peers` need the folder of shared graphs (see tests/graphs/shared.py).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import shared
from tests.measure.coverage_table import markdown

CORE = ("ts/tv_resnet50", "ts/hf_bert_base", "ts/tv_densenet121", "ts/tv_vit_b_16", "ts/hf_swin_tiny")
STAGES = ("tracing", "scoring", "planning", "rewriting")
# The exports of the networks that Torch-Pruning is measured on, from PyTorch where there is one.
PEERS: Mapping[str, str] = {
    "resnet50": "ts/tv_resnet50",
    "densenet121": "ts/tv_densenet121",
    "mobilenet_v2": "ts/tv_mobilenet_v2",
    "convnext_tiny": "ts/hf_convnext_tiny",
    "resnext50_32x4d": "ts/tv_resnext50_32x4d",
    "efficientnet_b0": "tf/keras_efficientnetb0",
    "inception_v3": "tf/keras_inceptionv3",
    "shufflenet_v2_x1_0": "ts/tv_shufflenet_v2_x1_0",
    "vit_b_16": "ts/tv_vit_b_16",
    "swin_t": "ts/hf_swin_tiny",
    "maxvit_t": "ts/tv_maxvit_t",
}
ROOT = Path(__file__).resolve().parents[2]
LOAD_AND_SAVE = "import sys, onnx; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"


@dataclass(frozen=True)
class Cost:
    """What something took."""

    wall: float
    cpu: float
    rss: int = 0


# --- stages in this process -------------------------------------------------------------------------------


def timed(what: Callable[[], Any]) -> tuple[Any, Cost]:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = what()
    return result, Cost(time.perf_counter() - wall, time.process_time() - cpu)


def prune_once(source: Path | onnx.ModelProto, ratio: float = 0.5) -> dict[str, Cost]:
    """The stages of one pruning, without load, save and proof; from a fresh model, so that nothing is cached."""
    from onnxprune import criteria
    from onnxprune.allocation import Options, select
    from onnxprune.model import load
    from onnxprune.rewriting import plan as plans
    from onnxprune.rewriting import removed_classes
    from onnxprune.rewriting.rewrite import rewrite
    from onnxprune.tracing import trace

    model, options = load(source), Options(ratio=ratio)
    costs: dict[str, Cost] = {}
    groups, costs["tracing"] = timed(lambda: trace(model))
    scores, costs["scoring"] = timed(lambda: criteria.score(groups, options.criterion, options.seed))

    def planned() -> Any:
        chosen = select(groups, scores, options).removed
        plans.make(groups, chosen, scores, options.as_json())
        return chosen

    chosen, costs["planning"] = timed(planned)

    def rewritten() -> Any:
        small = rewrite(groups, removed_classes(groups, chosen))
        for make in small.values.values():  # what the writer would otherwise slice
            make()
        return small

    _, costs["rewriting"] = timed(rewritten)
    return costs


def total(costs: Mapping[str, Cost]) -> Cost:
    """All stages together."""
    return Cost(sum(c.wall for c in costs.values()), sum(c.cpu for c in costs.values()))


def best(runs: Sequence[dict[str, Cost]]) -> dict[str, Cost]:
    """The run that took the least CPU time."""
    return min(runs, key=lambda run: total(run).cpu)


def core(options: argparse.Namespace) -> None:
    """The stages against onnx.load + onnx.save, in one process per graph."""
    rows = []
    for entry in (shared.entry(name) for name in options.graphs or CORE):
        with shared.materialised(entry) as path, TemporaryDirectory() as scratch:
            saves, prunes = [], []
            for _ in range(options.runs):
                saves.append(timed(lambda: onnx.save(onnx.load(path), Path(scratch) / "copy.onnx"))[1])
                prunes.append(prune_once(path))
            run, base = best(prunes), min(saves, key=lambda c: c.cpu)
            sums = total(run)
            wall = min(total(r).wall for r in prunes) / min(s.wall for s in saves)
            rows.append(
                [
                    entry.name,
                    f"{path.stat().st_size / 1e6:.0f}",
                    *(f"{1e3 * run[s].cpu:.0f}" for s in STAGES),
                    f"{1e3 * sums.cpu:.0f}",
                    f"{1e3 * base.cpu:.0f}",
                    f"{sums.cpu / base.cpu:.2f}",
                    f"{wall:.2f}",
                ]
            )
    head = ("graph", "MB", *STAGES, "sum (CPU ms)", "load + save (CPU ms)", "CPU ratio", "wall ratio")
    print(markdown(head, rows))


# --- whole processes --------------------------------------------------------------------------------------


def _high_water(pid: int) -> int:
    """Largest resident size of a running process so far, bytes; 0 before it has replaced the image of its parent."""
    try:
        if b"tests.measure.bench" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return 0
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) << 10 if found else 0


def process_cost(command: Sequence[str]) -> Cost:
    """Run a command; its wall time, CPU time and peak memory in bytes."""
    start, peak, done = time.perf_counter(), 0, 0
    with TemporaryFile() as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
        # The kernel's own figure for a child starts from the size of this process, so the high-water mark is watched.
        while not done:
            peak = max(peak, _high_water(child.pid))
            done, status, usage = os.wait4(child.pid, os.WNOHANG)
            time.sleep(0.002)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}: {log.read().decode()[-500:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak)


def prune_command(source: Path, target: Path) -> list[str]:
    """`onnxprune prune --no-verify` as a user runs it."""
    options = ["--ratio", "0.5", "--no-verify", "--force"]
    return [sys.executable, "-m", "onnxprune", "prune", str(source), "-o", str(target), *options]


def process(options: argparse.Namespace) -> None:
    """The whole command against a process that only loads and saves."""
    rows = []
    for entry in (shared.entry(name) for name in options.graphs or CORE):
        with shared.materialised(entry) as path, TemporaryDirectory() as scratch:
            target = Path(scratch) / "out.onnx"
            plain, ours = [], []
            for _ in range(options.runs):
                plain.append(process_cost([sys.executable, "-c", LOAD_AND_SAVE, str(path), str(target)]))
                target.unlink()
                ours.append(process_cost(prune_command(path, target)))
                target.unlink()
            size = path.stat().st_size
            a, b = least(ours), least(plain)
            rows.append(
                [
                    entry.name,
                    f"{size / 1e6:.0f}",
                    f"{a.wall:.2f} / {b.wall:.2f} = {a.wall / b.wall:.2f}",
                    f"{a.cpu:.2f} / {b.cpu:.2f} = {a.cpu / b.cpu:.2f}",
                    f"{a.rss / size:.2f}",
                    f"{b.rss / size:.2f}",
                ]
            )
    head = ("graph", "MB", "wall s: prune / load + save", "CPU s: prune / load + save")
    print(markdown((*head, "peak memory / file", "the same, load + save"), rows))


def least(costs: Sequence[Cost]) -> Cost:
    """The least of each."""
    return Cost(min(c.wall for c in costs), min(c.cpu for c in costs), min(c.rss for c in costs))


def help_time(options: argparse.Namespace) -> None:
    """`onnxprune --help` against a bare interpreter."""
    commands = {
        "python -m onnxprune --help": [sys.executable, "-m", "onnxprune", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    script = shutil.which("onnxprune", path=str(Path(sys.executable).parent))
    if script:
        commands = {"onnxprune --help": [script, "--help"], **commands}
    rows = []
    for name, command in commands.items():
        costs = [process_cost(command) for _ in range(options.runs)]
        walls = sorted(c.wall for c in costs)
        rows.append([f"`{name}`", f"{1e3 * walls[0]:.0f}", f"{1e3 * walls[len(walls) // 2]:.0f}"])
    print(markdown(("command", "least wall ms", "median wall ms"), rows))


def memory(options: argparse.Namespace) -> None:
    """A synthetic decoder with external data, pruned in a process of its own."""
    from tests.graphs import make_decoder

    with TemporaryDirectory(dir=options.folder) as scratch:
        source, target = Path(scratch) / "decoder.onnx", Path(scratch) / "small.onnx"
        size = make_decoder.make(source, options.gib)
        cost = process_cost(prune_command(source, target))
        left = target.with_name(target.name + ".data").stat().st_size
    row = [f"{size / 2**30:.2f}", f"{left / 2**30:.2f}", f"{cost.wall:.1f}", f"{cost.cpu:.1f}"]
    head = ("weights GiB", "after", "wall s", "CPU s", "peak memory GiB")
    print(markdown(head, [[*row, f"{cost.rss / 2**30:.2f}"]]))


# --- scaling ----------------------------------------------------------------------------------------------


def chain(nodes: int, width: int) -> onnx.ModelProto:
    """A residual-free chain of 1x1 Conv and Relu."""
    rng = np.random.default_rng(0)
    layers, weights, x = [], [], "x"
    for index in range(nodes // 2):
        value = rng.standard_normal((width, width, 1, 1), np.float32) / math.sqrt(width)
        weights.append(numpy_helper.from_array(value, f"w{index}"))
        layers.append(helper.make_node("Conv", [x, f"w{index}"], [f"c{index}"], name=f"conv{index}"))
        layers.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        x = f"r{index}"
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", width, 8, 8]) for n in ("x", x)]
    graph = helper.make_graph(layers, "chain", sides[:1], sides[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def scaling(options: argparse.Namespace) -> None:
    """CPU time against the number of nodes, and of channels."""
    print("Nodes (16 channels):\n")
    _scaling_table("nodes", [(n, n, 16) for n in (100, 300, 1000, 3000, 10_000)], options.runs)
    print("Channels (20 nodes):\n")
    _scaling_table("channels", [(w, 20, w) for w in (16, 64, 256, 1024, 2048, 4096)], options.runs)


def _scaling_table(name: str, points: Iterable[tuple[int, int, int]], runs: int) -> None:
    rows = []
    for value, nodes, width in points:
        model = chain(nodes, width)
        run = best([prune_once(model) for _ in range(runs)])
        spent = total(run).cpu
        per = f"{1e6 * spent / nodes:.0f}", f"{1e9 * spent / ((nodes // 2) * width * width):.2f}"
        row = [f"{value:,}", *(f"{1e3 * run[s].cpu:.1f}" for s in STAGES), f"{1e3 * spent:.1f}"]
        rows.append([*row, per[0] if name == "nodes" else per[1]])
    unit = "us / node" if name == "nodes" else "ns / weight"
    print(markdown((name, *STAGES, "sum (CPU ms)", unit), rows))


# --- peers ------------------------------------------------------------------------------------------------


def peers(options: argparse.Namespace) -> None:
    """Beside Torch-Pruning, on the same machine: CPU seconds at ratio 0.5."""
    report = json.loads(options.file.read_text(encoding="utf-8"))
    rows, ratios = [], []
    for record in report["networks"]:
        name = PEERS.get(record["network"])
        if name is None:
            continue
        entry = shared.entry(name)
        with shared.materialised(entry) as path:
            ours = total(best([prune_once(path) for _ in range(options.runs)]))
        done = record["status"] == "done"
        if done:
            ratios.append(record["cpu_s"] / ours.cpu)
        outcome = "ran" if done else record.get("error") or record.get("forward", record["status"])
        theirs = f"{record['cpu_s']:.2f}" if "cpu_s" in record else "-"
        ratio = f"{record['cpu_s'] / ours.cpu:.1f}" if done else "-"
        rows.append([record["network"], name, theirs, f"{ours.cpu:.2f}", ratio, outcome])
    print(markdown(("network", "our graph", "Torch-Pruning CPU s", "onnxprune CPU s", "ratio", "theirs"), rows))
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"Geometric mean over the {len(ratios)} that it finished: {mean:.1f}; least {min(ratios):.1f}.")


# --- the command line -------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    functions: dict[str, Callable[[argparse.Namespace], None]] = {
        "core": core,
        "process": process,
        "scaling": scaling,
        "peers": peers,
        "help": help_time,
        "memory": memory,
    }
    for name, function in functions.items():
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(function=function)
        command.add_argument("--runs", type=int, default=20 if name == "help" else 5)
        if name in ("core", "process"):
            command.add_argument("graphs", nargs="*", help="names such as ts/tv_resnet50")
        if name == "peers":
            command.add_argument("file", type=Path, help="what bench_torch_pruning.py --json wrote")
        if name == "memory":
            command.add_argument("--gib", type=float, default=4.0)
            command.add_argument("--folder", type=Path, help="where there is room for twice the size")
    options = parser.parse_args(arguments)
    if options.command in ("core", "process", "peers") and shared.folder() is None:
        parser.error(shared.ABSENT)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one measurement."""
    options = parse(arguments)
    print(f"python {sys.version.split()[0]}, onnx {onnx.__version__}, numpy {np.__version__}, {os.cpu_count()} cores\n")
    options.function(options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"({options.runs} runs each; peak memory of this process {peak} MiB)")


if __name__ == "__main__":
    main()
