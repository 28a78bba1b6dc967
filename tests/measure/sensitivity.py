"""How long the sensitivity of a network takes, killed in the middle and resumed: the figures in docs/sensitivity.md.

    python -m tests.measure.sensitivity [--network ts/tv_resnet50] [--ratios 0.1,0.3,0.5,0.7,0.9] [--jobs 2] [--kill 20]

Needs the folder of shared graphs (see tests/graphs/shared.py). Calibration inputs are 256 photographs of CIFAR-10,
stretched to what the network takes. The command is killed once it has made `--kill` measurements, and given again.
Times are those of both together, from the start of a process to its end; processor time is that of all workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from tests.graphs import shared


def photographs(folder: Path, count: int) -> None:
    """Write photographs, drawn with seed 1."""
    root = shared.folder()
    assert root is not None, shared.ABSENT
    with np.load(root / "data" / "cifar10" / "train_2000.npz") as data:
        raw = data["x"]
    for number, index in enumerate(np.random.default_rng(1).permutation(len(raw))[:count]):
        Image.fromarray(raw[index]).save(folder / f"{number:03}.png")


def finished(cache: Path) -> int:
    """How many measurements a cache holds."""
    return cache.read_bytes().count(b"\n") if cache.exists() else 0


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="ts/tv_resnet50")
    parser.add_argument("--ratios", default="0.1,0.3,0.5,0.7,0.9")
    parser.add_argument("--criterion", default="l2")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kill", type=int, default=20)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    with shared.materialised(shared.entry(given.network)) as model, TemporaryDirectory() as scratch:
        images, cache = Path(scratch) / "images", Path(scratch) / "cache.jsonl"
        images.mkdir()
        photographs(images, given.samples)
        command = [sys.executable, "-m", "onnxprune", "sensitivity", str(model), "--data", str(images), "--json"]
        command += ["--samples", str(given.samples), "--criterion", given.criterion, "--ratios", given.ratios]
        command += ["--jobs", str(given.jobs), "--cache", str(cache)]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ) as process:
            while finished(cache) < given.kill and process.poll() is None:
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
        kept, killed = finished(cache), time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        end = time.perf_counter()
    found = json.loads(done.stdout)
    total = sum(len(curve["points"]) for curve in found["curves"])
    assert found["measured"] == total - kept, "a finished measurement was repeated"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{given.network}: {len(found['curves'])} groups, {total} cuts, {given.samples} inputs, {given.jobs} workers")
    print(
        f"killed after {killed - start:.0f} s with {kept} cuts; the other {found['measured']} in {end - killed:.0f} s"
    )
    print(f"together {end - start:.0f} s, processor time after the kill {processor:.0f} s")


if __name__ == "__main__":
    main()
