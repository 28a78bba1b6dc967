"""Shrink what frameworks have masked, with onnxsim beside it: the table of masked exports in docs/shrink.md.

    python -m tests.measure.shrink_masked --torch PYTHON [--onnxsim PYTHON] [--openvino PYTHON]

`--torch` is an interpreter with PyTorch, which masks and exports networks (`tests/measure/masked_exports.py`);
`--onnxsim` and `--openvino` are interpreters with these tools. OpenVINO prunes the same files as it reads them;
the elements of all its constants of floats are counted, before and after. The graphs of Keras are those of the zoo with
drawn weights: 30 % of the filters of every layer but the last are zero with their biases (`filters`), or half of the
elements of every weight, the smallest, as TensorFlow Model Optimization leaves them (`elements`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.cost import counts
from onnxprune.model import Model, load, to_proto
from onnxprune.pipelines.shrink import ShrinkOptions, Shrunk, shrink_model
from onnxprune.proof.compare_outputs import differences
from onnxprune.runtime import Session
from onnxprune.runtime.random_inputs import random_feeds
from onnxprune.tracing import trace
from tests.graphs import shared

EXPORTS = Path(__file__).with_name("masked_exports.py")
KERAS = ("tf/keras_mlp", "tf/keras_unet", "tf/keras_mobilenetv2")
PRUNE = """
import sys
import openvino
from openvino._offline_transformations import apply_moc_transformations, apply_pruning_transformation
def elements(model):
    floats = (n for n in model.get_ops() if n.get_type_name() == "Constant" and n.get_element_type().is_real())
    return sum(n.data.size for n in floats)
model = openvino.Core().read_model(sys.argv[1])
apply_moc_transformations(model, False)
before = elements(model)
apply_pruning_transformation(model)
print(elements(model) / before)
"""
SIMPLIFY = "import sys,onnx,onnxsim; onnx.save(onnxsim.simplify(onnx.load(sys.argv[1]))[0], sys.argv[2])"


@dataclass(frozen=True)
class Peers:
    """The interpreters of other tools; None for one that is not there."""

    onnxsim: str | None
    openvino: str | None


def keras(name: str, folder: Path, *, filters: bool) -> Path:
    """A graph of Keras with zeros."""
    with shared.materialised(shared.entry(name)) as path:
        proto = to_proto(load(path))
    rng, stored = np.random.default_rng(0), {t.name: t for t in proto.graph.initializer}
    layers = [n for n in proto.graph.node if n.op_type in ("Conv", "MatMul", "Gemm") and n.input[1] in stored]
    for node in layers[:-1]:
        value = numpy_helper.to_array(stored[node.input[1]]).copy()
        axis = 0 if node.op_type == "Conv" else value.ndim - 1
        if filters:
            gone = rng.permutation(value.shape[axis])[: int(0.3 * value.shape[axis])]
            np.moveaxis(value, axis, 0)[gone] = 0
            for bias in (stored[n] for n in node.input[2:] if n in stored):
                shift = numpy_helper.to_array(bias).copy()
                shift[gone] = 0
                bias.CopyFrom(numpy_helper.from_array(shift, bias.name))
        else:
            value[np.abs(value) < np.median(np.abs(value))] = 0
        stored[node.input[1]].CopyFrom(numpy_helper.from_array(value, node.input[1]))
    target = folder / f"{Path(name).name}-{'filters' if filters else 'elements'}.onnx"
    onnx.save(proto, target)
    return target


def params(model: Model) -> int:
    """Elements of all weights."""
    return counts.of_trace(trace(model).tracing, model).params


def error_of(model: Model, done: Shrunk) -> float:
    """The largest difference of the outputs on inputs that the proof has not seen, as a share of the largest number."""
    errors, tracing = [0.0], done.groups.tracing
    with Session(model) as one, Session(done.model) as two:
        for seed in range(90, 93):
            feeds = random_feeds(tracing.model, done.groups.static, np.random.default_rng(seed))
            errors += differences(one.outputs, one.run(feeds), two.run(feeds, one.outputs)).values()
    return max(errors)


def row(path: Path, rows: int | None, peers: Peers) -> str:
    """One line of the table."""
    model = load(path)
    done = shrink_model(model, ShrinkOptions())
    error, whole = error_of(model, done), done.before.params
    simplified = pruned = "-"
    if peers.onnxsim:
        target = path.with_suffix(".sim.onnx")
        subprocess.run([peers.onnxsim, "-c", SIMPLIFY, str(path), str(target)], check=True, capture_output=True)
        simplified = f"{params(load(target)) / whole:.0%}"
    if peers.openvino:
        ran = subprocess.run([peers.openvino, "-c", PRUNE, str(path)], capture_output=True, text=True, check=False)
        pruned = "fails" if ran.returncode else f"{float(ran.stdout):.0%}"
    stays = sum(sum(why.values()) for why in done.stays.values())
    assert done.verdict is not None and done.verdict.ok
    left = f"{done.after.params / whole:.0%}", simplified, pruned
    cells = (path.stem, "-" if rows is None else rows, done.units, stays, *left)
    return f"| {' | '.join(map(str, cells))} | {error:.0e} |"


def lines(python: str | None, peers: Peers) -> Iterator[str]:
    """The table."""
    yield "| graph | rows masked | units that went | that stay | parameters left | onnxsim | OpenVINO | largest error |"
    yield "|---|---|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if python:
            subprocess.run([python, str(EXPORTS), name], check=True, capture_output=True)
            account = json.loads((folder / "masked.json").read_text(encoding="utf-8"))
            for title, rows in account.items():
                yield row(folder / f"{title}.onnx", sum(rows.values()), peers)
        if shared.folder() is not None:
            for graph in KERAS:
                for filters in (True, False):
                    yield row(keras(graph, folder, filters=filters), None, peers)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="an interpreter that has PyTorch")
    parser.add_argument("--onnxsim", help="an interpreter that has onnxsim")
    parser.add_argument("--openvino", help="an interpreter that has OpenVINO")
    given = parser.parse_args()
    for line in lines(given.torch, Peers(given.onnxsim, given.openvino)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
