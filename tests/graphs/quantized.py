"""Small float models in the forms that quantisers write."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime import quantization as tools

from onnxprune.model.graph import remove_dead
from onnxprune.typing import Array
from tests.graphs.net import Net

# Name -> what ONNX Runtime's tools are told.
STATIC: dict[str, dict[str, Any]] = {
    "qdq": {"quant_format": tools.QuantFormat.QDQ, "per_channel": True, "weight_type": tools.QuantType.QInt8},
    "qdq-tensor": {"quant_format": tools.QuantFormat.QDQ, "weight_type": tools.QuantType.QInt8},
    "qdq-uint8": {"quant_format": tools.QuantFormat.QDQ, "weight_type": tools.QuantType.QUInt8},
    "operators": {"quant_format": tools.QuantFormat.QOperator, "weight_type": tools.QuantType.QUInt8},
}
DYNAMIC, BLOCKS = "dynamic", "blocks"
FORMS = (*STATIC, DYNAMIC, BLOCKS)
KINDS = ("conv", "products")


def quantizable(kind: str) -> tuple[onnx.ModelProto, Array]:
    """Two layers whose hidden channels are made of a quarter of them, so that half can go; and inputs."""
    rng = np.random.default_rng(0)
    net = Net(opset=17)
    if kind == "conv":
        x, shape = net.input(["n", 3, 9, 9]), (3, 9, 9)
        first = np.tensordot(rng.standard_normal((16, 4)), rng.standard_normal((4, 3, 3, 3)), 1)
        biases = [net.const((scale * rng.standard_normal(n)).astype(np.float32)) for n, scale in ((16, 1), (5, 1))]
        hidden = net.add("Conv", x, net.const(first.astype(np.float32)), biases[0], pads=[1, 1, 1, 1])
        net.output(net.add("Conv", net.add("Relu", hidden), net.weight(5, 16, 3, 3), biases[1], pads=[1, 1, 1, 1]))
    else:
        x, shape = net.input(["n", 6, 16]), (6, 16)
        first = rng.standard_normal((16, 8)) @ rng.standard_normal((8, 64))
        hidden = net.add("MatMul", x, net.const(first.astype(np.float32)))
        net.output(net.add("MatMul", net.add("Relu", hidden), net.weight(64, 16)))
    return net.proto(), rng.standard_normal((192, *shape)).astype(np.float32)


class Feeds(tools.CalibrationDataReader):
    """Runs, one by one."""

    def __init__(self, runs: Sequence[dict[str, Array]]) -> None:
        self.left: Iterator[dict[str, Array]] = iter(runs)

    def get_next(self) -> dict[str, Array] | None:
        return next(self.left, None)


def quantized(proto: onnx.ModelProto, form: str, runs: Sequence[dict[str, Array]]) -> onnx.ModelProto:
    """The model in one of `FORMS`; `runs` are inputs whose ranges the static ones take."""
    if form == BLOCKS:
        return in_blocks(proto)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.onnx")
            if form == DYNAMIC:
                tools.quantize_dynamic(proto, path, weight_type=tools.QuantType.QInt8)
            else:
                tools.quantize_static(proto, path, Feeds(runs), activation_type=tools.QuantType.QUInt8, **STATIC[form])
            made = onnx.load(path)
    finally:
        logging.disable(level)
    remove_dead(made.graph)
    return made


def in_blocks(proto: onnx.ModelProto, bits: int = 4, block: int = 16) -> onnx.ModelProto:
    """The model with MatMulNBits for every MatMul of a stored matrix: symmetric, by the largest of each block."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    stored = {t.name: t for t in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            weight = numpy_helper.to_array(stored[node.input[1]])
            width, outputs = weight.shape
            count, zero = -(-width // block), 2 ** (bits - 1)
            wide = np.zeros((outputs, count * block), np.float32)
            wide[:, :width] = weight.T
            parts = wide.reshape(outputs, count, block)
            scale = np.maximum(np.abs(parts).max(axis=2) / (zero - 1), 1e-6).astype(np.float32)
            numbers = np.clip(np.round(parts / scale[..., None]) + zero, 0, 2**bits - 1).astype(np.uint8)
            pairs = numbers.reshape(outputs, count, -1, 8 // bits)
            packed = sum(pairs[..., i] << (bits * i) for i in range(8 // bits)).astype(np.uint8)
            names = [f"{node.output[0]}_{role}" for role in ("packed", "scales")]
            given = [numpy_helper.from_array(v, n) for v, n in zip((packed, scale), names, strict=True)]
            made.graph.initializer.extend(given)
            sizes = {"K": width, "N": outputs, "bits": bits, "block_size": block}
            made_by = helper.make_node(
                "MatMulNBits", [node.input[0], *names], node.output, name=node.name, domain="com.microsoft", **sizes
            )
            node.CopyFrom(made_by)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    remove_dead(made.graph)
    return made


def output(proto: onnx.ModelProto, x: Array) -> Array:
    """What ONNX Runtime computes, without the kernels that saturate sums of pairs on some processors."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return np.asarray(ort.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0])
