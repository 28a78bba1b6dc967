"""Make a synthetic decoder-only transformer with external data, of any size, in little memory.

    python -m tests.graphs.make_decoder --gib 4 FOLDER/decoder.onnx

LLaMA-like: RMSNorm as exporters decompose it, attention with a causal mask, SwiGLU, an untied output projection,
dynamic batch and sequence. The weights are written to `<file>.data` piece by piece; they are random and differ from
channel to channel, but they mean nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

HIDDEN, HEADS, INNER, VOCABULARY = 2048, 16, 5632, 32000
BLOCK = 1 << 20  # elements that are drawn; every weight is pieces of the block, from random places on
ALIGNMENT = 4096


@dataclass
class _Network:
    """Collects nodes and weights; the data of the weights goes to a file at once."""

    file: BinaryIO
    location: str
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.block = self.rng.standard_normal(BLOCK, np.float32)

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Add a node; returns its output."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: object, dtype: type = np.float32) -> str:
        """Add a small constant that stays in the model file."""
        self.weights.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Add a weight and write its data."""
        offset = self.file.seek(math.ceil(self.file.tell() / ALIGNMENT) * ALIGNMENT)
        count = math.prod(shape)
        scale = np.float32(1 / math.sqrt(shape[0]))
        left = count
        while left:
            start = int(self.rng.integers(BLOCK // 2))
            piece = self.block[start : start + left] * (scale * np.float32(self.rng.uniform(0.5, 1.5)))
            self.file.write(piece.tobytes())
            left -= len(piece)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", offset), ("length", count * 4)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        return name

    # --- parts of the decoder ----------------------------------------------------------------------------

    def norm(self, x: str, name: str) -> str:
        """RMSNorm, decomposed."""
        square = self.op("Pow", [x, "two"], f"{name}.square")
        mean = self.op("ReduceMean", [square], f"{name}.mean", axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, "epsilon"], f"{name}.shifted")], f"{name}.root")
        scaled = self.op("Div", [x, root], f"{name}.scaled")
        return self.op("Mul", [scaled, self.weight(f"{name}.weight", HIDDEN)], f"{name}.out")

    def project(self, x: str, name: str, rows: int, columns: int) -> str:
        """A linear layer without bias."""
        return self.op("MatMul", [x, self.weight(f"{name}.weight", rows, columns)], f"{name}.out")

    def heads(self, x: str, name: str, perm: Sequence[int]) -> str:
        """[batch, sequence, hidden] to heads."""
        split = self.op("Reshape", [x, "head_shape"], f"{name}.split")
        return self.op("Transpose", [split], f"{name}.turned", perm=list(perm))

    def attention(self, x: str, name: str) -> str:
        """Multi-head attention with a causal mask."""
        q, k, v = (self.project(x, f"{name}.{part}_proj", HIDDEN, HIDDEN) for part in "qkv")
        q, v = (self.heads(t, f"{name}.{part}", [0, 2, 1, 3]) for t, part in ((q, "q"), (v, "v")))
        k = self.heads(k, f"{name}.k", [0, 2, 3, 1])
        scores = self.op("Mul", [self.op("MatMul", [q, k], f"{name}.dot"), "scale"], f"{name}.scores")
        masked = self.op("Add", [scores, "mask"], f"{name}.masked")
        weights = self.op("Softmax", [masked], f"{name}.softmax", axis=-1)
        mixed = self.op("MatMul", [weights, v], f"{name}.mixed")
        joined = self.op("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        flat = self.op("Reshape", [joined, "flat_shape"], f"{name}.flat")
        return self.project(flat, f"{name}.o_proj", HIDDEN, HIDDEN)

    def feed_forward(self, x: str, name: str) -> str:
        """SwiGLU."""
        gate = self.project(x, f"{name}.gate_proj", HIDDEN, INNER)
        up = self.project(x, f"{name}.up_proj", HIDDEN, INNER)
        silu = self.op("Mul", [gate, self.op("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
        return self.project(self.op("Mul", [silu, up], f"{name}.gated"), f"{name}.down_proj", INNER, HIDDEN)

    def layer(self, x: str, name: str) -> str:
        """One block of the decoder."""
        read = self.attention(self.norm(x, f"{name}.attention_norm"), f"{name}.attention")
        x = self.op("Add", [x, read], f"{name}.read")
        thought = self.feed_forward(self.norm(x, f"{name}.mlp_norm"), f"{name}.mlp")
        return self.op("Add", [x, thought], f"{name}.out")

    def mask(self) -> None:
        """The causal mask, from the length of the sequence."""
        size = self.op("Shape", ["input_ids"], "sequence", start=1, end=2)
        square = self.op("Concat", [size, size], "mask_shape", axis=0)
        value = numpy_helper.from_array(np.array([-1e4], np.float32))
        full = self.op("ConstantOfShape", [square], "mask_full", value=value)
        self.op("Trilu", [full, self.constant("one", 1, np.int64)], "mask", upper=1)


def layers_for(gib: float) -> int:
    """How many layers make `gib` GiB of weights."""
    layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER
    return max(1, round((gib * 2**30 / 4 - 2 * VOCABULARY * HIDDEN) / layer))


def make(path: Path, gib: float = 4.0) -> int:
    """Write the model and its data; returns the bytes of the data."""
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        net = _Network(file, data.name)
        net.constant("two", 2.0)
        net.constant("epsilon", 1e-5)
        net.constant("scale", 1 / math.sqrt(HIDDEN // HEADS))
        net.constant("head_shape", [0, 0, HEADS, HIDDEN // HEADS], np.int64)
        net.constant("flat_shape", [0, 0, HIDDEN], np.int64)
        net.mask()
        x = net.op("Gather", [net.weight("embedding.weight", VOCABULARY, HIDDEN), "input_ids"], "embedded")
        for index in range(layers_for(gib)):
            x = net.layer(x, f"layers.{index}")
        x = net.norm(x, "norm")
        weight = net.weight("output.weight", HIDDEN, VOCABULARY)
        net.op("MatMul", [x, weight], "logits")
        size = file.tell()
    dims = ["batch", "sequence"]
    graph = helper.make_graph(
        net.nodes,
        "decoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*dims, VOCABULARY])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return size


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--gib", type=float, default=4.0, help="size of the weights in GiB (default 4)")
    options = parser.parse_args()
    size = make(options.path, options.gib)
    print(f"{options.path}: {layers_for(options.gib)} layers, {size / 2**30:.2f} GiB of weights")


if __name__ == "__main__":
    main()
