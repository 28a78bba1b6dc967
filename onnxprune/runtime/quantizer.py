"""ONNX Runtime's quantiser: which nodes compute with whole numbers, and the scales of their tensors."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from onnxprune.errors import OnnxPruneError, RunError
from onnxprune.model import Model, Names, load, to_proto
from onnxprune.model.graph import captured, remove_dead
from onnxprune.typing import Array, Feeds

# What the tool adds to the name of a node that it replaces, and to that of a Gemm which it turns into a MatMul before.
REPLACED, OF_GEMM = "_quant", "_MatMul"
# ... and to that of a tensor, for what it stores beside it: a tensor that is called so would be taken for it.
BESIDE = ("_scale", "_zero_point", "_quantized", "_quantized_scale", "_quantized_zero_point")
# What it calls the types.
_TYPES = {"int8": "QInt8", "uint8": "QUInt8", "int4": "QInt4", "uint4": "QUInt4"}


def quantized_static(model: Model, runs: Sequence[Feeds], left: Sequence[str], **options: Any) -> Model:
    """Quantise weights and activations, these by the ranges that they have on given inputs.

    Args:
        model: a float model, every node of which has a name of its own.
        runs: inputs, which say the ranges.
        left: names of nodes that stay in float.
        options: `operators` in place of float nodes between quantisers, `per_channel`, `weights` and `activations`
            ("int8" or "uint8"; weights "int4" or "uint4", too, from opset 21 on), and `narrow`: names of nodes whose
            weights are of 4 bits whatever `weights` says.

    Returns:
        The quantised model.

    Raises:
        RunError: the quantiser refuses the model.
    """
    from onnxruntime import quantization as tools

    operators, narrow = options.pop("operators"), set(options.pop("narrow", ()))
    form = tools.QuantFormat.QOperator if operators else tools.QuantFormat.QDQ
    given = _given(options, left)
    given["activation_type"] = getattr(tools.QuantType, _TYPES[options["activations"]])
    model = _apart(model)
    nodes = [node for node in model.proto.graph.node if node.name in narrow]
    if nodes:
        whole = {"quant_type": tools.QuantType.QInt4, "symmetric": True}
        axes = [{"axis": _output_axis(node)} if options["per_channel"] else {} for node in nodes]
        told = {node.input[1]: [whole | axis] for node, axis in zip(nodes, axes, strict=True)}
        given["extra_options"]["TensorQuantOverrides"] = told
    with _written(model) as (source, target):
        tools.quantize_static(source, target, _reader(runs), quant_format=form, **given)
        return _read(target)


def quantized_dynamic(model: Model, left: Sequence[str], **options: Any) -> Model:
    """Quantise weights; activations are quantised while the model runs, each by its own range.

    Args:
        model: a float model, every node of which has a name of its own.
        left: names of nodes that stay in float.
        options: `per_channel` and `weights`, as for `quantized_static`.

    Returns:
        The quantised model.

    Raises:
        RunError: the quantiser refuses the model.
    """
    from onnxruntime import quantization as tools

    with _written(_apart(model)) as (source, target):
        tools.quantize_dynamic(source, target, **_given(options, left))
        return _read(target)


def _given(options: Mapping[str, Any], left: Sequence[str]) -> dict[str, Any]:
    from onnxruntime import quantization as tools

    return {
        "per_channel": options["per_channel"],
        "weight_type": getattr(tools.QuantType, _TYPES[options["weights"]]),
        "nodes_to_exclude": list(left),
        # Kernels take one zero point for all channels: with uint8, the middle.
        "extra_options": {"WeightSymmetric": True},
    }


def _apart(model: Model) -> Model:
    """The model with other names for the tensors that the tool would take for scales and the like of its own."""
    graph = model.proto.graph
    stored = {t.name for t in graph.initializer}
    tensors = stored.union(*(node.output for node in graph.node), (value.name for value in graph.input)) - {""}
    kept = {value.name for value in (*graph.input, *graph.output)}.union(*(captured(node) for node in graph.node))
    taken = {f"{name}{suffix}" for name in tensors for suffix in BESIDE} & tensors - kept
    if not taken:
        return model
    proto = to_proto(model)
    names = Names([*tensors])
    renamed = {name: names.unique(f"{name}_of_model") for name in sorted(taken)}
    for node in proto.graph.node:
        for listed in (node.input, node.output):
            listed[:] = [renamed.get(name, name) for name in listed]
    for tensor in (*proto.graph.initializer, *proto.graph.value_info):
        tensor.name = renamed.get(tensor.name, tensor.name)
    return replace(model, proto=proto, values={}, folder=None)


def _output_axis(node: onnx.NodeProto) -> int:
    """The axis of a weight that scales lie along."""
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def _reader(runs: Sequence[Feeds]) -> Any:
    from onnxruntime import quantization as tools

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        """Runs, one by one."""

        def __init__(self) -> None:
            self._left: Iterator[Mapping[str, Array]] = iter(runs)

        def get_next(self) -> Mapping[str, Array] | None:
            """The next inputs."""
            return next(self._left, None)

    return Reader()


@contextmanager
def _written(model: Model) -> Iterator[tuple[str, str]]:
    """The model in a file, and the name of another; what the tool notes and raises becomes ours."""
    level = logging.root.manager.disable
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        source, target = (str(Path(folder) / name) for name in ("source.onnx", "target.onnx"))
        onnx.save(to_proto(model), source)
        logging.disable(logging.WARNING)
        try:
            yield source, target
        except OnnxPruneError:
            raise
        except Exception as error:  # what a tool of others raises for a model that it was not made for
            first = str(error).partition("\n")[0]
            raise RunError(f"ONNX Runtime cannot quantise the model: {type(error).__name__}: {first}") from error
        finally:
            logging.disable(level)


def _read(path: str) -> Model:
    """The quantised model, in memory, without what the tool left behind of what it replaced."""
    proto = onnx.load(path)
    remove_dead(proto.graph)
    return load(proto)
