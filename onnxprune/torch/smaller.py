"""A PyTorch module made smaller by the masks of a plan."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from onnxprune.checkpoints import slice_state_dict, state_dict_masks
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, load
from onnxprune.rewriting import Plan
from onnxprune.runtime import Session
from onnxprune.torch.module import as_array
from onnxprune.typing import Array

Masks = Mapping[str, Array]
# Of outputs that are equal but for rounding.
_TOLERANCE = 1e-4
_OWN_SIZES = (
    "sizes that a module of one's own stores, as a number of heads, are set by adjust=; the pruned model must be cut "
    "only, without repair"
)
# Sets the sizes that a layer knows after its tensors were cut; takes the layer and the masks of its own tensors.
Resize = Callable[[Any, Masks], None]


def masks(plan: Plan, model: object, module: nn.Module, *, ignore: Sequence[str] = ()) -> dict[str, Array]:
    """Map the keep masks of a plan to the parameters and buffers of the module that a model was exported from.

    They are found by their values, whatever the exporter called them; batch norms may be folded, matrices turned
    around, projections joined.

    Args:
        plan: the plan, made for `model`.
        model: the exported model.
        module: the module, with the values that it was exported with.
        ignore: globs of parameters that the model does not use.

    Returns:
        bool by name, for every parameter and buffer that shrinks.

    Raises:
        UsageError: a parameter cannot be found in the model, or not surely.
    """
    state = {name: as_array(tensor) for name, tensor in module.state_dict().items()}
    return state_dict_masks(plan, model, state, ignore=ignore)


def slim(
    module: nn.Module,
    masks: Masks,
    *,
    pruned: object = None,
    example: Sequence[Any] = (),
    adjust: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Make a module smaller: a copy whose parameters, buffers and layers have the sizes that masks keep.

    Layers of PyTorch know their new sizes afterwards. A module of one's own that stores sizes itself (a number of
    heads) has to be told, by `adjust`. With `pruned` and `example`, the result is held against the pruned model.

    Args:
        module: the module; it is not changed.
        masks: bool by name of a parameter or buffer, as `masks` returns them.
        pruned: the model that the same plan was applied to, neither repaired nor trained.
        example: inputs of the module, in the order of the model's inputs.
        adjust: sets sizes that the module keeps itself, in the smaller copy.

    Returns:
        The smaller copy.

    Raises:
        UsageError: a mask is of a tensor that is not there, or of a layer whose sizes are not known to be changeable.
        GoalMissed: the smaller module does not compute what the pruned model computes.
    """
    smaller = _cut_down(module, masks)
    if adjust is not None:
        adjust(smaller)
    if pruned is not None:
        _prove(smaller, load(pruned), example)
    return smaller


def _prove(smaller: nn.Module, pruned: Model, example: Sequence[Any]) -> None:
    """Hold a smaller module against the pruned model, for inference."""
    names = [value.name for value in pruned.proto.graph.input]
    if len(names) != len(example):
        raise UsageError(f"the model has {len(names)} inputs, the example {len(example)}")
    with Session(pruned) as session:
        outputs = session.run({n: as_array(tensor) for n, tensor in zip(names, example, strict=True)})
    expected = [output for output in outputs if output.dtype.kind == "f"]
    was_training = smaller.training
    try:
        with torch.no_grad():
            made = [as_array(tensor) for tensor in _flat(smaller.eval()(*example))]
    except RuntimeError as error:
        raise GoalMissed(f"the smaller module does not run: {error}", hint=_OWN_SIZES) from error
    smaller.train(was_training)
    if [a.shape for a in made] != [b.shape for b in expected]:
        raise GoalMissed("the smaller module gives outputs of other shapes", hint=_OWN_SIZES)
    for a, b in zip(made, expected, strict=True):
        difference = float(np.abs(a - b).max()) if a.size else 0.0
        if not difference <= _TOLERANCE * max(float(np.abs(b).max(initial=0)), 1e-6):
            raise GoalMissed(f"the smaller module differs from the pruned model by {difference:.2g}", hint=_OWN_SIZES)


def _flat(outputs: Any) -> list[Any]:
    """The tensors of floats among the outputs of a module."""
    if isinstance(outputs, torch.Tensor):
        return [outputs] if outputs.is_floating_point() else []
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return [tensor for part in parts for tensor in _flat(part)]


def _cut_down(module: nn.Module, masks: Masks) -> nn.Module:
    smaller = copy.deepcopy(module)
    tensors = {**dict(smaller.named_parameters(remove_duplicate=False)), **dict(smaller.named_buffers())}
    cut: dict[int, Any] = {}
    for name, mask in masks.items():
        if name not in tensors:
            raise UsageError(f"the module has no parameter {name!r}", hint="the masks are of another module")
        tensor = tensors[name]
        if id(tensor) not in cut:
            cut[id(tensor)] = (_cut(tensor, mask, name), mask)
        elif not np.array_equal(cut[id(tensor)][1], mask):
            raise UsageError(f"{name!r} is shared between layers, and its masks differ", hint="untie the layers")
    changed: dict[str, dict[str, Array]] = {}
    for name, mask in masks.items():
        path, _, leaf = name.rpartition(".")
        changed.setdefault(path, {})[leaf] = mask
        layer = smaller.get_submodule(path)
        target = layer._parameters if leaf in layer._parameters else layer._buffers
        target[leaf] = cut[id(tensors[name])][0]
    for path, own in changed.items():
        _resize(smaller.get_submodule(path), own, path)
    return smaller


def _cut(tensor: Any, mask: Array, name: str) -> Any:
    sliced = slice_state_dict({name: tensor.detach()}, {name: mask})[name].clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(sliced, requires_grad=tensor.requires_grad)
    return sliced


def _resize(layer: nn.Module, own: Masks, path: str) -> None:
    for kinds, resize in _RESIZES:
        if isinstance(layer, kinds):
            resize(layer, own)
            return
    if type(layer).forward is not nn.Module.forward and type(layer).__module__.startswith("torch."):
        raise UsageError(
            f"no rule says how a {type(layer).__name__} gets smaller ({path!r})",
            hint="lock it: `onnxprune prune --lock`, or cut its tensors with slice_state_dict",
        )


def _linear(layer: Any, own: Masks) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _convolution(layer: Any, own: Masks) -> None:
    layer.groups = _groups(layer.groups, own.get("weight"))
    outputs, inputs = layer.weight.shape[:2]
    layer.out_channels, layer.in_channels = outputs, inputs * layer.groups


def _transposed(layer: Any, own: Masks) -> None:
    layer.groups = _groups(layer.groups, own.get("weight"))
    inputs, outputs = layer.weight.shape[:2]
    layer.in_channels, layer.out_channels = inputs, outputs * layer.groups


def _groups(groups: int, mask: Array | None) -> int:
    """The groups of which a row stays."""
    if mask is None or groups == 1:
        return groups
    rows = mask.any(tuple(range(1, mask.ndim))).reshape(groups, -1)
    left = rows.any(1)
    counts = rows[left].sum(1)
    if (counts != counts[0]).any():
        raise UsageError(f"the groups of a convolution would have {counts.tolist()} channels", hint="take another plan")
    return int(left.sum())


def _batch_norm(layer: Any, own: Masks) -> None:
    layer.num_features = len(next(t for t in (layer.weight, layer.running_mean) if t is not None))


def _layer_norm(layer: Any, own: Masks) -> None:
    layer.normalized_shape = tuple(layer.weight.shape)


def _group_norm(layer: Any, own: Masks) -> None:
    layer.num_groups, layer.num_channels = _groups(layer.num_groups, own.get("weight")), len(layer.weight)


def _embedding(layer: Any, own: Masks) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _prelu(layer: Any, own: Masks) -> None:
    layer.num_parameters = len(layer.weight)


def _recurrent(layer: Any, own: Masks) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(type(layer).__name__, 1)
    layer.input_size = layer.weight_ih_l0.shape[1]
    sizes = {layer._parameters[n].shape[1] for n in layer._parameters if n.startswith("weight_hh")}
    sizes |= {layer._parameters[n].shape[0] // gates for n in layer._parameters if n.startswith("weight_hh")}
    if len(sizes) != 1 or layer.proj_size:
        raise UsageError(f"the layers of a {type(layer).__name__} would have {sorted(sizes)} units", hint="lock it")
    layer.hidden_size = sizes.pop()
    layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]


_RESIZES: Sequence[tuple[tuple[type, ...], Resize]] = (
    ((nn.Linear,), _linear),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _batch_norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    ((nn.GroupNorm,), _group_norm),
    ((nn.Embedding,), _embedding),
    ((nn.PReLU,), _prelu),
    ((nn.RNNBase,), _recurrent),
)
