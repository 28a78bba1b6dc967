"""Measure how long Torch-Pruning takes for torchvision's classification networks, for comparison.

This is a bench, not a test: pytest does not collect it, and nothing else in the project imports it or needs
what it needs. It has an environment of its own, made once with plain pip (Python 3.11 or later):

    python -m venv bench-env
    bench-env/bin/pip install "torch==2.13.0" torch-pruning
    bench-env/bin/pip install --no-deps "torchvision==0.28.0"   # the release made for that torch
    bench-env/bin/pip install pillow numpy                      # what torchvision imports
    bench-env/bin/python tests/measure/bench_torch_pruning.py --json out.json --timeout 150

Only torchvision's Python network definitions are used. A CPU build of torch beside torchvision's default
build is fine: where torchvision's C extension cannot load, the operators that its import insists on are
declared here instead.

Every network gets random weights and a process of its own. Timed is this, and only this:

    importance = tp.importance.MagnitudeImportance(p=2)
    pruner = tp.pruner.MagnitudePruner(
        model, example_inputs, importance=importance, pruning_ratio=0.5, ignored_layers=[classifier]
    )
    pruner.step()

`cpu_s` is the processor time of the process over all its threads (time.process_time), so it stays meaningful
when other work shares the machine; `wall_s` is elapsed time; `construct_cpu_s` is the pruner's construction
alone. A network whose first run was quick is built and pruned again, and the run with the least processor
time is reported. A run that exceeds --timeout is stopped, and the functions it was in are reported; the
timeout is in elapsed seconds and covers pruning and the trial run of the pruned network, not imports and
building. `--advised` adds what Torch-Pruning's own torchvision example sets for vision transformers.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.metadata
import importlib.util
import json
import platform
import re
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

THREADS = 2
RATIO = 0.5
NETWORKS = (
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "convnext_tiny",
    "vgg19_bn",
    "efficientnet_b0",
    "regnet_y_400mf",
    "resnext50_32x4d",
    "googlenet",
    "inception_v3",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "vit_b_16",
    "swin_t",
    "maxvit_t",
)
BUILD_OPTIONS = {
    # The auxiliary heads only exist for training, and their own weight initialisation takes minutes.
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
IMAGE_SIZES = {"inception_v3": 299}
QUICK_SHARE = 0.1  # a first run that took at most this share of the timeout is repeated
BUILD_ALLOWANCE_S = 300  # for imports and building, on top of the timeout, before the parent gives up
KEPT_ALIVE = []
RESULT = "@result "  # marks the worker's result lines among whatever the libraries print


# --- the worker: one network, in a process of its own ---


def import_torchvision():
    """Import torchvision, also where its C extension does not fit the torch build."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        # Kept for good: a Library takes its definitions with it when it is collected.
        schemas = torch.library.Library("torchvision", "DEF")
        KEPT_ALIVE.append(schemas)
        for operator in ("nms", "qnms"):
            schemas.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def build(name):
    """Return the network with random weights, its example input, and its classifier layer."""
    import torch

    torch.manual_seed(0)
    model = import_torchvision().models.get_model(name, weights=None, **BUILD_OPTIONS.get(name, {})).eval()
    size = IMAGE_SIZES.get(name, 224)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    return model, torch.randn(1, 3, size, size), layers[-1]


def advised_options(model, ignored):
    """What Torch-Pruning's torchvision example adds: whole heads stay divisible, output projections stay."""
    import torch

    attentions = [m for m in model.modules() if isinstance(m, torch.nn.MultiheadAttention)]
    if not attentions:
        return {"ignored_layers": ignored}
    return {
        "ignored_layers": ignored + [m.out_proj for m in attentions],
        "round_to": attentions[0].num_heads,
    }


def forward(model, example):
    """Return how the pruned network's trial run went."""
    import torch

    try:
        with torch.no_grad():
            output = model(example)
    except Exception as error:  # noqa: BLE001 - whatever the network raises is the finding
        return describe(error)
    if not bool(torch.isfinite(output).all()):
        return "not finite"
    return "runs" if tuple(output.shape) == (1, 1000) else f"output shape {tuple(output.shape)}"


def describe(error):
    """Return the error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def prune_once(name, advised, timeout):
    """Build the network, prune it against the clock, and return the run's facts."""
    import torch_pruning as tp

    model, example, classifier = build(name)
    options = advised_options(model, [classifier]) if advised else {"ignored_layers": [classifier]}
    run = {"params_before": sum(p.numel() for p in model.parameters())}
    faulthandler.dump_traceback_later(timeout, exit=True)
    phase, wall, cpu = "construct", time.perf_counter(), time.process_time()
    try:
        pruner = tp.pruner.MagnitudePruner(
            model,
            example,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=RATIO,
            **options,
        )
        run["construct_cpu_s"] = round(time.process_time() - cpu, 3)
        phase = "step"
        pruner.step()
    except Exception as error:  # noqa: BLE001 - whatever the pruner raises is the finding
        run["error"] = f"{phase}: {describe(error)}"
    run["cpu_s"] = round(time.process_time() - cpu, 3)
    run["wall_s"] = round(time.perf_counter() - wall, 3)
    run["params_after"] = sum(p.numel() for p in model.parameters())
    if advised and isinstance(getattr(model, "hidden_dim", None), int) and hasattr(model, "conv_proj"):
        model.hidden_dim = model.conv_proj.out_channels  # forward() reads it, and no pruner can know
    if "error" not in run:
        run["forward"] = forward(model, example)
    faulthandler.cancel_dump_traceback_later()
    return run


def work(name, runs, advised, timeout):
    """Prune one network up to `runs` times; print each run's facts as they come."""
    import torch

    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    for _ in range(runs):
        run = prune_once(name, advised, timeout)
        run["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(RESULT + json.dumps(run), flush=True)
        if "error" in run or run["wall_s"] > QUICK_SHARE * timeout:
            break


# --- the parent: starts workers, gathers, reports ---


def children_cpu_s():
    """Return the processor seconds used by all workers that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(name, options):
    """Run a worker for the network and return its record."""
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", name]
    command += ["--runs", str(options.runs), "--timeout", str(options.timeout)]
    command += ["--advised"] if options.advised else []
    before = children_cpu_s()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=2 * options.timeout + BUILD_ALLOWANCE_S,
            check=False,
        )
        stdout, stderr = done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        stdout, stderr = "", "Timeout (while building or importing)!"
    record = {"network": name, "process_cpu_s": round(children_cpu_s() - before, 1)}
    lines = [line for line in stdout.splitlines() if line.startswith(RESULT)]
    runs = [json.loads(line.removeprefix(RESULT)) for line in lines]
    if runs:
        best = min(runs, key=lambda run: run["cpu_s"])
        # "broken": the pruner ended without complaint, and what it left does not run.
        status = "error" if "error" in best else "done" if best["forward"] == "runs" else "broken"
        return record | {"status": status, "runs": len(runs)} | best
    if stderr.startswith("Timeout (") or "\nTimeout (" in stderr:
        # Innermost first, names only: the paths say where the libraries lie on one machine.
        stack = re.findall(r"^  File .*, line \d+ in (\S+)$", stderr, re.MULTILINE)
        message = f"not finished after {options.timeout} s"
        return record | {"status": "timeout", "error": message, "stuck_in": stack[:4]}
    last = stderr.strip().splitlines()[-1:] or ["the worker ended without a result"]
    return record | {"status": "error", "error": last[0]}


def row(record):
    """Return the record as one line of the table."""
    if "cpu_s" not in record:
        return f"{record['network']:<20} {record['error']}  {' < '.join(record.get('stuck_in', []))}"
    outcome = record.get("forward") or record["error"]
    counts = f"{record['params_before']:>12,} {record['params_after']:>12,}"
    return f"{record['network']:<20} {record['cpu_s']:>8.2f} {record['wall_s']:>8.2f} {counts}  {outcome}"


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the records to")
    parser.add_argument("--models", default=",".join(NETWORKS), help="comma-separated torchvision names")
    parser.add_argument("--timeout", type=int, default=150, help="elapsed seconds per run (default 150)")
    parser.add_argument("--runs", type=int, default=3, help="runs of a quick network (default 3)")
    parser.add_argument("--advised", action="store_true", help="with the settings of that project's example")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.timeout < 1 or options.runs < 1:
        parser.error("--timeout and --runs must be at least 1")
    missing = [m for m in ("torch", "torchvision", "torch_pruning") if importlib.util.find_spec(m) is None]
    if missing:
        parser.error(f"not installed here: {', '.join(missing)} (see the head of this file)")
    return options


def main(arguments=None):
    options = parse(arguments)
    if options.worker:
        work(options.worker, options.runs, options.advised, options.timeout)
        return
    packages = ("torch", "torchvision", "torch-pruning", "numpy")
    report = {
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "settings": {
            "pruning_ratio": RATIO,
            "importance": "MagnitudeImportance(p=2)",
            "threads": THREADS,
            "timeout_s": options.timeout,
            "runs": options.runs,
            "advised": options.advised,
        },
        "networks": [],
    }
    heads = ("cpu s", "wall s", "params", "pruned")
    print(f"{'network':<20} {heads[0]:>8} {heads[1]:>8} {heads[2]:>12} {heads[3]:>12}  trial run", flush=True)
    for name in filter(None, options.models.split(",")):
        record = measure(name.strip(), options)
        report["networks"].append(record)
        print(row(record), flush=True)
        if options.json:  # after each network, so that an interrupted bench keeps what it has
            options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
