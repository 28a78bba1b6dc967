"""Accuracy beside that of the peers, at equal MACs: the table in docs/accuracy.md.

    python -m tests.measure.accuracy_peers --python PEERS/bin/python [--network NAME ...] [--peers
    onnxsim,Torch-Pruning]
                                   [--amounts 0.2,0.4,0.6] [--samples 256]

PEERS is an environment of its own with `pip install onnxsim onnxruntime torch torch-pruning`. Every peer prunes the
same file by each amount: onnxsim by its `apply_structured_pruning` (and then, with the pictures, its
`apply_pruning_finetune`), Torch-Pruning as `peer_torch_pruning.py` says. Ours gets the MACs that this left as its
budget: without data, with random numbers, and with pictures. Pictures are those of `python -m tests.measure.accuracy`.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.cost import counts
from onnxprune.errors import RunError
from onnxprune.model import Model, load
from onnxprune.runtime import Session
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy import NETWORKS

ONNXSIM = """
import sys, numpy, onnx
from onnxsim.pruning import apply_structured_pruning
source, target, amount, data, *finetuned = sys.argv[1:]
small = apply_structured_pruning(onnx.load(source), sparsity=float(amount))
if finetuned:
    from onnxsim.finetune import apply_pruning_finetune
    small = apply_pruning_finetune(onnx.load(source), small, [dict(numpy.load(data))])
onnx.save(small, target)
"""
# Their arguments: the file, the file to write, how much goes, and calibration pictures.
PEERS = {
    "onnxsim": (["-c", ONNXSIM], []),
    "onnxsim+finetune": (["-c", ONNXSIM], ["finetuned"]),
    "Torch-Pruning": ([str(Path(__file__).with_name("peer_torch_pruning.py"))], []),
}


def theirs(python: str, peer: str, source: str, amount: str, data: labelled.Labelled) -> Model | str:
    """What a peer makes of a file, or why it does not."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "small.onnx"
        np.savez(Path(folder) / "seen.npz", **{data.entry: data.calibration})
        before, after = PEERS[peer]
        command = [python, *before, source, str(target), amount, str(Path(folder) / "seen.npz"), *after]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.splitlines()[-1]
        other = load(str(target))
    try:
        with Session(other):
            return other
    except RunError as error:
        return f"what it wrote does not run: {error.message}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--network", action="append")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--amounts", default="0.2,0.4,0.6")
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    print("| network | peer | MACs left | peer | ours, no data | random numbers | pictures |")
    print("|---|---|---|---|---|---|---|")
    for name in given.network or NETWORKS:
        source = load(str(shared.entry(f"models/{name}").path))
        data = labelled.of(name, source, given.samples)
        whole = counts.of(source).macs
        print(f"| {name} | none | 100 % | {data.accuracy(source):.2%} | | | |", flush=True)
        for peer, amount in itertools.product(given.peers.split(","), given.amounts.split(",")):
            other = theirs(given.python, peer, str(source.path), amount, data)
            if isinstance(other, str):
                print(f"| {name} | {peer} | {amount} removed | fails: {other} | | | |", flush=True)
                continue
            left = counts.of(other).macs
            found = [data.accuracy(other)]
            for inputs in (None, "random", data.feeds):
                small = api.run(source, Options(macs=left), data=inputs, samples=given.samples).model
                found.append(data.accuracy(small))
            print(f"| {name} | {peer} | {left / whole:.1%} | {' | '.join(f'{x:.2%}' for x in found)} |", flush=True)


if __name__ == "__main__":
    main()
