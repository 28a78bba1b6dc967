"""Forward pass, loss and backward pass of a model as one ordinary ONNX graph."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.autodiff import lowering, vjp
from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.forward import Forward, lay_out
from onnxprune.autodiff.losses import Loss, projection
from onnxprune.autodiff.reverse import Gradients, reverse
from onnxprune.autodiff.straight_line import body_weights, names_read
from onnxprune.errors import ModelError
from onnxprune.model import Model, load
from onnxprune.model.protos import keep
from onnxprune.typing import Array

__all__ = ["TrainingGraph", "build", "lowering", "vjp"]


@dataclass(frozen=True, eq=False)
class TrainingGraph:
    """A model with its loss and gradients, ready to run.

    Weights are inputs of the graph: the runtime folds initializers into other constants, which would then keep the
    weights' first elements.

    Attributes:
        model: the graph. Inputs: those of the model, the parameters, and the loss's own (`targets`).
        parameters: name -> elements of the trainable initializers, as the model has them (float32 or float64).
        loss: name of the output with the loss, one number.
        gradients: parameter -> name of the output with its gradient.
        taps: tensor -> name of the output with sums of activation times gradient, [batch, channels] (one axis where the
            channels are on axis 0).
        outputs: output of the model -> name of the output here; empty if not asked for.
        targets: name -> (shape, type) of the inputs that the loss adds.
        frozen: parameter -> why it has no gradient.
    """

    model: onnx.ModelProto
    parameters: Mapping[str, Array]
    loss: str
    gradients: Mapping[str, str]
    taps: Mapping[str, str]
    outputs: Mapping[str, str]
    targets: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    frozen: Mapping[str, str]


def build(
    model: object,
    feeds: Mapping[str, Array],
    loss: Loss,
    *,
    parameters: Sequence[str] | None = None,
    taps: Mapping[str, int] | Iterable[str] = (),
    freeze: bool = False,
) -> TrainingGraph:
    """Build the training graph of a model for the batch shape of `feeds`.

    Args:
        model: anything that `onnxprune.model.load` takes; it is not changed.
        feeds: name -> array for every input of the model, of the shapes that will be trained on.
        loss: adds the loss to the graph; see `onnxprune.autodiff.losses`.
        parameters: initializers to differentiate by, names or globs; those that look like weights if None.
        taps: tensors of which sums of activation times gradient are wanted, for importance of channels; as a mapping,
            with the axis of the channels, which is 1 otherwise.
        freeze: leave out parameters behind an operator without a rule, in place of refusing.

    Returns:
        The training graph, for batches of the shapes of `feeds`.

    Raises:
        ModelError: an operator on the way has no rule (and `freeze` is not set), or no parameter reaches the loss.
        RunError: the model does not run on `feeds`.
    """
    source = load(model)
    chosen = _matching(source, parameters)
    forward = lay_out(source, feeds, chosen)
    axes = dict(taps) if isinstance(taps, Mapping) else dict.fromkeys(taps, 1)
    missing = [name for name in axes if name not in forward.graph.values]
    if missing:
        raise ModelError(f"there is no tensor {missing[0]!r} to tap", hint="name a tensor of the model")
    end = loss(forward.graph, forward.outputs).reshape([])
    wanted = [*forward.parameters, *axes]
    result = reverse(forward, end, wanted)
    if result.blocked and not freeze:
        raise ModelError(
            _complaint(result.blocked), hint="register_vjp adds a rule; freeze=True leaves them as they are"
        )
    trained = [name for name in forward.parameters if name in result.by]
    if not trained and result.blocked:
        raise ModelError(_complaint(result.blocked), hint="nothing is left to train: register_vjp adds a rule")
    if not trained:
        raise ModelError("no parameter of the model reaches the loss", hint="name other parameters or another output")
    return _assemble(forward, end, result, axes)


def build_vjp(
    model: object,
    feeds: Mapping[str, Array],
    *,
    parameters: Sequence[str] | None = None,
    taps: Mapping[str, int] | Iterable[str] = (),
    freeze: bool = False,
) -> TrainingGraph:
    """Build a graph that takes the gradients of the model's float outputs from outside.

    Args:
        model: anything that `onnxprune.model.load` takes; it is not changed.
        feeds: name -> array for every input of the model.
        parameters: initializers to differentiate by, names or globs; those that look like weights if None.
        taps: as for `build`.
        freeze: as for `build`.

    Returns:
        The training graph; its inputs `gradient/NAME` take one array for each float output NAME.

    Raises:
        ModelError: an operator on the way has no rule, or no parameter reaches an output.
        RunError: the model does not run on `feeds`.
    """
    return build(model, feeds, projection(), parameters=parameters, taps=taps, freeze=freeze)


def forward_only(graph: TrainingGraph) -> onnx.ModelProto:
    """Return the part of a training graph that computes the loss."""
    wanted, kept = {graph.loss}, []
    for node in reversed(graph.model.graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(names_read([node]))
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.model)
    del proto.graph.node[:], proto.graph.output[1:]
    proto.graph.node.extend(reversed(kept))
    for values in (proto.graph.input, proto.graph.initializer):
        keep(values, lambda value: value.name in wanted)
    return proto


def _matching(model: Model, parameters: Sequence[str] | None) -> list[str] | None:
    if parameters is None:
        return None
    names = [t.name for t in model.proto.graph.initializer]
    names += [n.output[0] for n in model.proto.graph.node if n.op_type == "Constant" and not n.domain]
    names += body_weights(model.proto.graph)
    found = [n for n in names if any(n == p or fnmatch.fnmatchcase(n, p) for p in parameters)]
    if not found:
        raise ModelError(f"no initializer matches {list(parameters)}", hint="`onnxprune inspect` lists the weights")
    return found


def _complaint(blocked: Mapping[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, reason in blocked.items():
        reasons.setdefault(reason, []).append(name)
    reason, names = next(iter(reasons.items()))
    rest = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return f"{reason}; it blocks the gradients of {', '.join(names[:3])}{rest}"


def _assemble(forward: Forward, loss: Value, result: Gradients, taps: Mapping[str, int]) -> TrainingGraph:
    graph = forward.graph
    outputs: list[onnx.ValueInfoProto] = []

    def publish(value: Value, name: str) -> str:
        graph.nodes.append(helper.make_node("Identity", [value.name], [name]))
        outputs.append(helper.make_tensor_value_info(name, _elem_type(value.dtype), value.shape))
        return name

    total = publish(loss, "training/loss")
    gradients = {n: publish(g, f"training/gradient/{n}") for n, g in result.by.items() if n in forward.parameters}
    sums = {}
    for name, axis in taps.items():
        if name in result.by:
            product = forward.graph.values[name] * result.by[name]
            others = [a for a in range(1, product.rank) if a != axis]
            sums[name] = publish(product.sum(others), f"training/tap/{name}")
    made = {n: publish(v, f"training/output/{n}") for n, v in forward.outputs.items()}
    inputs = [*forward.inputs.values(), *(forward.graph.values[n] for n in forward.parameters), *graph.inputs.values()]
    used = {i for node in graph.nodes for i in names_read([node])}
    proto = helper.make_graph(
        graph.nodes,
        "training",
        [helper.make_tensor_value_info(v.name, _elem_type(v.dtype), v.shape) for v in inputs],
        outputs,
        [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in graph.constants.items() if n in used],
    )
    domains = {node.domain for node in graph.nodes} - {"", "ai.onnx"}
    opsets = [helper.make_opsetid("", graph.opset), *(helper.make_opsetid(d, 1) for d in sorted(domains))]
    return TrainingGraph(
        model=helper.make_model(proto, opset_imports=opsets, ir_version=10),
        parameters=dict(forward.parameters),
        loss=total,
        gradients=gradients,
        taps=sums,
        outputs=made,
        targets={v.name: (v.shape, v.dtype) for v in graph.inputs.values()},
        frozen=dict(result.blocked),
    )


def _elem_type(dtype: np.dtype) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))
