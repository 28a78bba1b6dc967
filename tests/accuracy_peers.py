"""Accuracy beside that of a peer, at equal MACs: the table in docs/accuracy.md.

    python -m tests.accuracy_peers --python PEERS/bin/python [--network NAME ...] [--sparsity 0.2,0.4,0.6]
                                   [--samples 256]

PEERS is an environment of its own with `pip install onnxsim onnxruntime`. The peer prunes the same file by its
`apply_structured_pruning`, at each sparsity; ours gets the MACs that this left as its budget, with and without data.
Pictures are those of `python -m tests.accuracy`.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxprune import api, cost
from onnxprune.model import load
from onnxprune.options import Options
from tests import shared
from tests.accuracy import NETWORKS, accuracy, pictures

CODE = """
import sys, onnx
from onnxsim.pruning import apply_structured_pruning
onnx.save(apply_structured_pruning(onnx.load(sys.argv[1]), sparsity=float(sys.argv[3])), sys.argv[2])
"""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--network", action="append")
    parser.add_argument("--sparsity", default="0.2,0.4,0.6")
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    folder = shared.folder()
    if folder is None:
        parser.error(shared.ABSENT)
    train, test = (np.load(folder / "data" / "cifar10" / f"{name}.npz") for name in ("train_2000", "test"))
    chosen = np.random.default_rng(1).permutation(len(train["x"]))[: given.samples]
    images, labels = pictures(test["x"]), test["y"].reshape(-1)
    print("| network | MACs left | onnxsim | ours, no data | ours, 256 pictures |\n|---|---|---|---|---|")
    for name in given.network or NETWORKS:
        source = load(str(shared.entry(f"models/{name}").path))
        (entry,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
        whole, data = cost.of(source).macs, {entry: pictures(train["x"][chosen])}
        print(f"| {name} | 100 % | {accuracy(source, entry, images, labels):.2%} | | |", flush=True)
        for sparsity in given.sparsity.split(","):
            with TemporaryDirectory() as temporary:
                theirs = Path(temporary) / "small.onnx"
                arguments = [str(source.path), str(theirs), sparsity]
                done = subprocess.run(
                    [given.python, "-c", CODE, *arguments], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    print(f"| {name} | sparsity {sparsity} | fails: {done.stderr.splitlines()[-1]} | | |", flush=True)
                    continue
                other = load(str(theirs))
                left = cost.of(other).macs
                found = [accuracy(other, entry, images, labels)]
            for inputs in (None, [data]):
                small = api.run(source, Options(macs=left), data=inputs, samples=given.samples).model
                found.append(accuracy(small, entry, images, labels))
            print(f"| {name} | {left / whole:.1%} | {' | '.join(f'{x:.2%}' for x in found)} |", flush=True)


if __name__ == "__main__":
    main()
