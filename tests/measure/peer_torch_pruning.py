"""Prune a convolutional ONNX file with Torch-Pruning: the peer of `python -m tests.measure.accuracy_peers`.

    PEERS/bin/python tests/measure/peer_torch_pruning.py SOURCE.onnx TARGET.onnx RATIO

PEERS is an environment of its own with `pip install torch torch-pruning onnx onnxsim`; nothing in the project imports
this file. The graph is rebuilt of torch modules with the weights of the file, pruned by `MagnitudePruner` with
`MagnitudeImportance(p=2)`, the classifier left whole, and exported again. Where what comes out does not run, the layers
that feed a residual stream are left whole, too, and said so.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnxsim
import torch
import torch_pruning as tp
from onnx import helper, numpy_helper
from torch.nn import functional


class Network(torch.nn.Module):
    """The graph of an ONNX file, node by node; what has weights is a module of torch."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        super().__init__()
        self.nodes = list(proto.graph.node)
        self.weights = {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}
        self.entry, self.exit = proto.graph.input[0].name, proto.graph.output[0].name
        self.layers = torch.nn.ModuleDict()
        for index, node in enumerate(self.nodes):
            if node.op_type in MODULES:
                values = [self.weights[n] for n in node.input if n in self.weights]
                self.layers[str(index)] = MODULES[node.op_type](attributes(node), *map(torch.tensor, values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = {self.entry: x}
        for index, node in enumerate(self.nodes):
            given = [values.get(name, self.weights.get(name)) for name in node.input]
            if str(index) in self.layers:
                values[node.output[0]] = self.layers[str(index)](given[0])
            else:
                values[node.output[0]] = PLAIN[node.op_type](attributes(node), *given)
        return values[self.exit]

    def streams(self) -> list[torch.nn.Module]:
        """The layers whose outputs are added to something."""
        added = {name for node in self.nodes if node.op_type == "Add" for name in node.input}
        return [self.layers[str(i)] for i, n in enumerate(self.nodes) if n.output[0] in added and str(i) in self.layers]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def convolution(given: dict[str, Any], weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Module:
    groups, kernel = given.get("group", 1), tuple(weight.shape[2:])
    pads = given.get("pads", [0, 0, 0, 0])
    made = torch.nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], kernel, tuple(given.get("strides", (1, 1))), groups=groups
    )
    made.bias = None if bias is None else torch.nn.Parameter(bias)
    made.weight = torch.nn.Parameter(weight)
    if pads[:2] == pads[2:]:
        made.padding = tuple(pads[:2])
        return made
    return torch.nn.Sequential(torch.nn.ZeroPad2d((pads[1], pads[3], pads[0], pads[2])), made)


def normalisation(given: dict[str, Any], *values: torch.Tensor) -> torch.nn.Module:
    made = torch.nn.BatchNorm2d(len(values[0]), eps=given.get("epsilon", 1e-5))
    made.weight, made.bias = torch.nn.Parameter(values[0]), torch.nn.Parameter(values[1])
    made.running_mean, made.running_var = values[2], values[3]
    return made


def linear(given: dict[str, Any], weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Module:
    weight = weight if given.get("transB") else weight.T
    made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = torch.nn.Parameter(weight.contiguous())
    if bias is not None:
        made.bias = torch.nn.Parameter(bias)
    return made


def cut(given: dict[str, Any], x: torch.Tensor, starts: Any, ends: Any, axes: Any, steps: Any) -> torch.Tensor:
    for start, end, axis, step in zip(*(np.asarray(v).tolist() for v in (starts, ends, axes, steps)), strict=True):
        parts = [slice(None)] * x.ndim
        parts[axis] = slice(start, end if end < 2**31 else None, step)
        x = x[tuple(parts)]
    return x


def padded(given: dict[str, Any], x: torch.Tensor, pads: Any, *rest: Any) -> torch.Tensor:
    before, after = np.split(np.asarray(pads), 2)
    return functional.pad(x, [int(v) for pair in zip(before[::-1], after[::-1], strict=True) for v in pair])


MODULES = {"Conv": convolution, "BatchNormalization": normalisation, "Gemm": linear, "MatMul": linear}
PLAIN = {
    "Relu": lambda given, x: functional.relu(x),
    "Add": lambda given, a, b: a + (torch.tensor(b) if isinstance(b, np.ndarray) else b),
    "Transpose": lambda given, x: x.permute(given["perm"]),
    "AveragePool": lambda given, x: functional.avg_pool2d(x, given["kernel_shape"], given.get("strides", 1)),
    "GlobalAveragePool": lambda given, x: functional.adaptive_avg_pool2d(x, 1),
    "Reshape": lambda given, x, shape: x.flatten(1),
    "Flatten": lambda given, x: x.flatten(1),
    "Softmax": lambda given, x: functional.softmax(x, -1),
    "Slice": cut,
    "Pad": padded,
}


def pruned(proto: onnx.ModelProto, ratio: float, *, whole_streams: bool) -> tuple[Network, torch.Tensor]:
    network = Network(proto).eval()
    shape = [d.dim_value or 1 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    example = torch.randn([1, *shape[1:]])
    last = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    ignored = last + (network.streams() if whole_streams else [])
    importance = tp.importance.MagnitudeImportance(p=2)
    pruner = tp.pruner.MagnitudePruner(
        network, example, importance=importance, pruning_ratio=ratio, ignored_layers=ignored
    )
    pruner.step()
    network(example)
    return network, example


def main(source: str, target: str, ratio: str) -> None:
    proto, _ = onnxsim.simplify(onnx.load(source))
    try:
        network, example = pruned(proto, float(ratio), whole_streams=False)
    except Exception as error:  # noqa: BLE001 whatever the peer cannot do
        print(f"with streams: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        network, example = pruned(proto, float(ratio), whole_streams=True)
    names = {"input_names": [network.entry], "output_names": [network.exit]}
    torch.onnx.export(network, (example,), target, dynamo=False, dynamic_axes={network.entry: {0: "n"}}, **names)


if __name__ == "__main__":
    main(*sys.argv[1:4])
