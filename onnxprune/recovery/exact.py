"""Recovery without loss: constants of removed units go into biases, multiples into the weights of other units."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.criteria import Fold
from onnxprune.layers import LinearLayer, Parameters, linear_layer
from onnxprune.model import Model, Names
from onnxprune.recovery.fits import METHODS
from onnxprune.recovery.targets import KeptMask, LayerTarget
from onnxprune.rewriting import Removal
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class _Sum:
    """A constant to be added to what a layer gives that has no bias."""

    tensor: str
    value: Array


def take_over(removal: Removal, pruned: Model, folds: Mapping[str, Fold]) -> tuple[Model, Collection[str]]:
    """Let the layers behind a cut take over what its units gave.

    Args:
        removal: what was removed, with the traced original.
        pruned: the smaller model, its bodies laid out flat.
        folds: first output of a layer -> what it takes over.

    Returns:
        The model, and the first outputs of the layers that could not; the model is wrong where there are any.
    """
    parameters, sums, failed = Parameters(pruned), list[_Sum](), set[str]()
    made = {node.output[0]: node for node in parameters.proto.graph.node if node.output}
    for name, fold in folds.items():
        view, node = removal.groups.tracing.by_output[name][0], made.get(name)
        old, new = linear_layer(view), None if node is None else linear_layer(view, node)
        if node is None or old is None or new is None or not parameters.is_own(node.input[new.weight]):
            failed.add(name)
            continue
        target = LayerTarget(view, node, old, new, None)
        left = _take(removal, parameters, target, fold)
        if left is not None:
            sums.append(left)
    return _with_sums(parameters.finished(), sums), failed


def _take(removal: Removal, parameters: Parameters, target: LayerTarget, fold: Fold) -> _Sum | None:
    """Change the weight and the bias of one layer; what it has no bias for."""
    kept = KeptMask.of(removal, target.view, target.old)
    if not kept.groups.any() or not kept.outputs.any():
        return None
    constant, partner, factor = (part[kept.groups] for part in (fold.constant, fold.partner, fold.factor))
    task = target.task(removal, parameters, METHODS["bias"])
    weight = task.full.copy()
    for group, own in enumerate(task.full):
        np.add.at(weight[group], partner[group], factor[group, :, None] * own)
    inputs = kept.inputs[kept.groups]
    weight = np.stack([one[which] for one, which in zip(weight, inputs, strict=True)])
    shift = np.einsum("gd,gdo->go", constant, task.full)
    task.write((weight, shift if task.shifted else np.zeros_like(shift)))
    if task.shifted or not shift.any():
        return None
    return _Sum(target.node.output[0], _along_output(parameters, target.new, shift))


def _along_output(parameters: Parameters, layer: LinearLayer, shift: Array) -> Array:
    weight = parameters.value(layer.node.input[layer.weight])
    return layer.laid_out(shift, weight.shape).astype(weight.dtype)


def _with_sums(model: Model, sums: Sequence[_Sum]) -> Model:
    """The model with constants added to tensors, which keep their names."""
    if not sums:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph, names = proto.graph, Names(model.proto.graph)
    added = {one.tensor: one for one in sums}
    nodes: list[onnx.NodeProto] = []
    for node in model.proto.graph.node:
        nodes.append(onnx.NodeProto())
        nodes[-1].CopyFrom(node)
        one = added.get(node.output[0]) if node.output else None
        if one is not None:
            nodes[-1].output[0], bias = names.unique(f"{one.tensor}_product"), names.unique(f"{one.tensor}_bias")
            graph.initializer.append(numpy_helper.from_array(one.value, bias))
            name = names.unique(f"{node.name}_bias") if node.name else ""
            nodes.append(helper.make_node("Add", [nodes[-1].output[0], bias], [one.tensor], name=name))
    del graph.node[:]
    graph.node.extend(nodes)
    return replace(model, proto=proto)
