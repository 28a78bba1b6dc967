"""What a model does not need, put into any graph: no-ops, constants behind and in front of contractions, copies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model import load
from onnxprune.tracing import trace

CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def add_superfluous(proto: onnx.ModelProto, rng: np.random.Generator) -> tuple[onnx.ModelProto, Counter[str]]:
    """Another model with things in it that its function does not need, and how many there are of each kind.

    Args:
        proto: a model, its graph without functions that hide tensors.
        rng: draws where and what.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    tracing = trace(load(proto)).tracing
    counted: Counter[str] = Counter()
    nodes = list(made.graph.node)
    del made.graph.node[:]
    outputs = {value.name for value in made.graph.output}
    for place, node in enumerate(nodes):
        made.graph.node.append(node)
        shape = tracing.static.shapes.get(node.output[0])
        is_float = tracing.static.dtypes.get(node.output[0]) == onnx.TensorProto.FLOAT
        if shape is None or not is_float or node.output[0] in outputs or not shape or rng.random() < 0.5:
            continue
        kind = str(rng.choice(["identity", "scale", "shift", "norm"] if node.op_type in CONTRACTIONS else ["identity"]))
        added = _behind(made.graph.node[-1], kind, tuple(shape), place, rng)
        if added is not None:
            new, weights = added
            made.graph.node.append(new)
            made.graph.initializer.extend(weights)
            counted[kind] += 1
    counted["copy"] = _copies(made, rng)
    made.graph.node.append(helper.make_node("Relu", [made.graph.node[0].output[0]], ["nobody_reads_it"], name="dead"))
    return made, counted


def _behind(
    node: onnx.NodeProto, kind: str, shape: tuple[int, ...], place: int, rng: np.random.Generator
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]] | None:
    """A node that makes what `node` made, from what it makes now."""
    name, inner = node.output[0], f"{node.output[0]}_before_{place}"
    axis = 1 if node.op_type.startswith("Conv") else len(shape) - 1
    width = shape[axis]
    lay = [width if a == axis else 1 for a in range(len(shape))]

    def line(low: float, stem: str, sizes: list[int]) -> onnx.TensorProto:
        value = rng.uniform(low, low + 1, sizes).astype(np.float32)
        return numpy_helper.from_array(value, f"{name}_{stem}_{place}")

    if kind == "identity":
        weights, new = [], helper.make_node("Identity", [inner], [name], name=f"extra_{place}")
    elif kind == "norm":
        if axis != 1:
            return None
        weights = [line(low, f"n{i}", [width]) for i, low in enumerate((0.5, -0.5, -0.5, 0.5))]
        new = helper.make_node("BatchNormalization", [inner, *(w.name for w in weights)], [name], name=f"extra_{place}")
    else:
        sizes = lay if rng.random() < 0.7 else [1]
        op = str(rng.choice(["Mul", "Div"] if kind == "scale" else ["Add", "Sub"]))
        weights = [line(0.5 if kind == "scale" else -0.5, "c", sizes)]
        new = helper.make_node(op, [inner, weights[0].name], [name], name=f"extra_{place}")
    node.output[0] = inner
    return new, weights


def _copies(proto: onnx.ModelProto, rng: np.random.Generator) -> int:
    """Store some weights twice, for two readers; how many."""
    readers = Counter(name for node in proto.graph.node for name in node.input)
    count = 0
    for tensor in list(proto.graph.initializer):
        if readers[tensor.name] < 2 or any(v.name == tensor.name for v in proto.graph.input) or rng.random() < 0.5:
            continue
        node = next(n for n in proto.graph.node if tensor.name in n.input)
        copy = proto.graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = f"{tensor.name}_copy"
        node.input[list(node.input).index(tensor.name)] = copy.name
        count += 1
    return count
