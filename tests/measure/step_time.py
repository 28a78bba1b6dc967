"""Time and memory of a training step, against the module in PyTorch's eager mode.

    python -m tests.measure.step_time [--write docs/performance.md] [--rounds N] [NAME ...]

A step is forward, loss (mean squared error), backward and Adam. Both sides run on one thread in one process, turn by
turn; the processor time of the fastest turn counts. The module trains with batch statistics, as people do. The peak of
memory is that of a process of its own for each side, less what it held before the first step; the weights count.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import fnmatch
import gc
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from onnxprune.autodiff import OPTIMIZERS, GradientSession, build, mse
from onnxprune.model import Model
from onnxprune.runtime import Setting
from tests.graphs.torch_networks import (
    CONVOLUTIONS,
    RECURRENCE,
    TRANSFORMER,
    Bert,
    Network,
    Recurrent,
    exported,
    from_torchvision,
    image,
    llama,
    noise,
    resnet20,
    tokens,
)

RATE = 1e-4
BEGIN, END = "<!-- step_time -->", "<!-- /step_time -->"
# Network -> batch.
SIZES: Mapping[Network, int] = {
    Network("ResNet-20", CONVOLUTIONS, resnet20, image(32)): 64,
    Network("ResNet-50", CONVOLUTIONS, from_torchvision("resnet50"), image(224), "torchvision"): 4,
    Network("MobileNetV2", CONVOLUTIONS, from_torchvision("mobilenet_v2"), image(96), "torchvision"): 16,
    Network("MobileNetV3-large", CONVOLUTIONS, from_torchvision("mobilenet_v3_large"), image(96), "torchvision"): 16,
    Network("BERT-base", TRANSFORMER, lambda: Bert(8000, 768, 12, 12), tokens(128, 8000)): 2,
    Network("LLaMA, 4 layers of 256", TRANSFORMER, lambda: llama(1000, 256, 4, 64), tokens(64, 1000)): 8,
    Network("LSTM, 2 layers of 128", RECURRENCE, lambda: Recurrent(nn.LSTM, 64, 128, depth=2), noise(32, 64)): 16,
}


@dataclass(frozen=True)
class Row:
    """What one network gave: milliseconds of a step and megabytes at its peak, of both sides; processor
    seconds to build the training graph and its session."""

    network: str
    batch: int
    ours: float
    theirs: float
    memory: float
    their_memory: float
    build: float


def _ours(network: Network, batch: int) -> tuple[Callable[[], Any], float]:
    """A step of the training graph, and the seconds that building took."""
    inputs = network.inputs(batch)
    proto = exported(network.module(), inputs, "dynamo")
    feeds = {i.name: t.numpy() for i, t in zip(proto.graph.input, inputs, strict=True)}
    start = time.process_time()
    graph = build(Model(proto), feeds, mse(proto.graph.output[0].name))
    session = GradientSession(graph, Setting(threads=1))
    seconds = time.process_time() - start
    (target, (shape, dtype)) = next(iter(graph.targets.items()))
    fed = {**feeds, target: np.zeros(shape, dtype)}
    weights = {name: np.array(array) for name, array in graph.parameters.items()}
    optimizer = OPTIMIZERS["adamw"]()

    def step() -> None:
        optimizer.update(weights, session.evaluate(fed, weights).gradients, RATE)

    return step, seconds


def _theirs(network: Network, batch: int) -> Callable[[], Any]:
    """A step of the module."""
    module, inputs = network.module().train(), network.inputs(batch)
    optimizer = torch.optim.Adam(module.parameters(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        module(*inputs).square().mean().backward()
        optimizer.step()

    return step


def _milliseconds(step: Callable[[], Any]) -> float:
    start = time.process_time()
    step()
    return (time.process_time() - start) * 1e3


def measure(network: Network, batch: int, rounds: int) -> Row:
    """Measure one network."""
    (ours, seconds), theirs = _ours(network, batch), _theirs(network, batch)
    for step in (ours, theirs):
        step()
    times = [(_milliseconds(ours), _milliseconds(theirs)) for _ in range(rounds)]
    del ours, theirs, step
    gc.collect()
    fastest = np.min(times, axis=0)
    peaks = [_peak_elsewhere(network.name, side) for side in ("ours", "theirs")]
    return Row(network.name, batch, fastest[0], fastest[1], peaks[0], peaks[1], seconds)


def _peak_elsewhere(name: str, side: str) -> float:
    command = [sys.executable, "-m", "tests.measure.step_time", "--peak", side, name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def _peak(network: Network, batch: int, side: str) -> float:
    """Megabytes that three steps add at their peak to what the process held before, its weights without a step."""
    step = _ours(network, batch)[0] if side == "ours" else _theirs(network, batch)
    gc.collect()
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        step()
    return _highest() - before


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def _highest() -> float:
    """The peak of resident memory since it was last reset, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def rows(patterns: Sequence[str], rounds: int) -> Iterator[Row]:
    """Measure all networks whose name matches and whose library is installed."""
    for network, batch in SIZES.items():
        if network.is_there and any(fnmatch.fnmatchcase(network.name, p) for p in patterns):
            yield measure(network, batch, rounds)


def table(measured: Sequence[Row]) -> str:
    """The rows as a table of a page."""
    lines = [
        "| network, batch | onnxprune, ms | PyTorch, ms | ratio | onnxprune, MB | PyTorch, MB | build, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in measured:
        lines.append(
            f"| {r.network}, {r.batch} | {r.ours:.1f} | {r.theirs:.1f} | {r.ours / r.theirs:.2f} "
            f"| {r.memory:.0f} | {r.their_memory:.0f} | {r.build:.1f} |"
        )
    mean = math.exp(sum(math.log(r.ours / r.theirs) for r in measured) / max(len(measured), 1))
    return "\n".join([*lines, f"| geometric mean | | | {mean:.2f} | | | |"])


def main() -> None:
    """Measure, print, and write into a page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="globs of networks")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--peak", choices=["ours", "theirs"], help="print the peak of memory of one side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        network, batch = next((n, b) for n, b in SIZES.items() if n.name == options.names[0])
        print(_peak(network, batch, options.peak))
        return
    measured = []
    for row in rows(options.names, options.rounds):
        measured.append(row)
        print(row, flush=True)
    print(table(measured))
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        options.write.write_text(f"{head}{BEGIN}\n\n{table(measured)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
