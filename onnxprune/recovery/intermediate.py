"""Targets inside of a model: tensors that should be what they are in the model that it was made from.

Sources: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015; by blocks: Li et al., "Blockwise Supervised Neural
Architecture Search with Knowledge Distillation", 2020.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from onnxprune.autodiff import GraphBuilder, Loss, Value, relative_squares
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model


def matching_tensors(model: Model, teacher: Model, globs: Sequence[str]) -> list[str]:
    """Find the tensors that both models make, and that a glob names; outputs are none of them.

    Args:
        model: the model that learns.
        teacher: the one that it was made from.
        globs: names, or patterns of names.

    Returns:
        Names, in the order in which the model makes them.

    Raises:
        UsageError: a glob names none.
    """
    theirs = {o for node in teacher.proto.graph.node for o in node.output}
    outputs = {value.name for value in model.proto.graph.output}
    both = [o for node in model.proto.graph.node for o in node.output if o and o in theirs and o not in outputs]
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in both):
            some = ", ".join(both[:5]) + (" ..." if len(both) > 5 else "")
            raise UsageError(
                f"--intermediate: no tensor that both models make matches {glob!r}",
                hint=f"tensors: {some}" if both else "the models have no tensor of the same name",
            )
    return [name for name in both if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


def with_tensors(model: Model, names: Sequence[str]) -> Model:
    """Let a model give tensors beside its outputs.

    Args:
        model: the model; it is not changed.
        names: tensors that it makes.

    Returns:
        The model with more outputs; the same one if there are no names.
    """
    if not names:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return Model(proto, model.folder, model.path, model.values)


def with_intermediate(loss: Loss, sources: Mapping[str, str]) -> Loss:
    """Add the mean squared error of tensors, each relative to the teacher's, to a loss.

    Args:
        loss: of the outputs.
        sources: tensor -> the input of the training graph that takes the teacher's.

    Returns:
        The sum; the loss itself if there are no tensors.
    """
    if not sources:
        return loss
    inside = relative_squares(sources)

    def joined(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        lacking = next((name for name in sources if name not in graph.values), None)
        if lacking is not None:
            raise ModelError(
                f"the training graph does not make tensor {lacking!r}",
                hint="--intermediate: name a tensor in front of it or behind it",
            )
        total = loss(graph, outputs).reshape([])
        return graph.total([total, inside(graph, {name: graph.values[name] for name in sources}).cast(total.dtype)])

    return joined
