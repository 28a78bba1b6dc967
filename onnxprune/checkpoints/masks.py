"""Keep masks of a plan mapped to the arrays of a checkpoint, which names and lays out its weights in its own way."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxprune.checkpoints.origins import Origin, RowPlaces, Weight, by_sizes, origins, scaled_origins
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.rewriting import Plan
from onnxprune.typing import Array

# Names of the arrays of a batch norm: scale, shift, mean, variance; a list of Keras has them in this order, and lacks
# the first, the second or both.
_NORMS: tuple[tuple[str | None, str | None, str, str], ...] = (
    ("weight", "bias", "running_mean", "running_var"),
    ("gamma", "beta", "moving_mean", "moving_variance"),
    ("0", "1", "2", "3"),
    (None, "0", "1", "2"),
    ("0", None, "1", "2"),
    (None, None, "0", "1"),
)
_EPSILONS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-8, 1e-12, 2e-5, 0.0)
_ROUNDING = 1e-4
# Operator -> slot of its bias: folding adds norms to it, and other biases.
_BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3}
# What PyTorch's dynamo exporter writes beside a node: the modules that it is in.
_SCOPES = "pkg.torch.onnx.name_scopes"
# Name of an array -> the weights that it may be in.
_Origins = Mapping[str, Sequence[Origin]]


@dataclass(frozen=True, eq=False)
class FoldableNorm:
    """A batch norm of a checkpoint.

    Attributes:
        names: of its arrays that are there.
        scale: what it multiplies by, for each assumption of its epsilon.
    """

    names: Sequence[str]
    scale: Sequence[Array]


def state_dict_masks(
    plan: Plan, model: object, state: Mapping[str, Any], *, ignore: Sequence[str] = ()
) -> dict[str, Array]:
    """Map the keep masks of a plan to the arrays that the model was exported from.

    Arrays are found by their values: as they are, with the axes in another order, joined with others or cut into
    several, or with a batch norm multiplied in. Where several weights have the same elements and lose different
    positions, the name decides, or the place in the tree of modules that the exporter wrote beside the node.

    Args:
        plan: the plan.
        model: the model that the plan was made for, with the values that `state` has.
        state: name -> array, or anything that numpy reads (a tensor on the CPU).
        ignore: globs of arrays that the model does not use: heads for training alone.

    Returns:
        bool by name, in the shape of the array, for every array that shrinks.

    Raises:
        UsageError: an array cannot be found in the model, or in several places that lose different positions; or a
            weight of the model that shrinks is found in no array.
    """
    weights = _weights(plan, model)
    arrays = {name: np.asarray(value) for name, value in state.items()}
    floats = {
        name: array
        for name, array in arrays.items()
        if array.dtype.kind == "f" and array.ndim and not any(fnmatch.fnmatchcase(name, g) for g in ignore)
    }
    masks, used = _found(floats, weights)
    _check_whole(weights, used)
    return {name: mask for name, mask in masks.items() if not mask.all()}


def layer_masks(
    plan: Plan, model: object, layers: Mapping[str, Sequence[Array]], *, ignore: Sequence[str] = ()
) -> dict[str, list[Array | None]]:
    """Map the keep masks of a plan to the weights of layers, as `layer.get_weights()` of Keras lists them.

    Args:
        plan: the plan.
        model: the model that the plan was made for.
        layers: name of the layer -> its arrays.
        ignore: globs of layers that the model does not use.

    Returns:
        A mask for every array of every layer; None where it stays whole.

    Raises:
        UsageError: an array cannot be found; see `state_dict_masks`.
    """
    state = {f"{name}/{k}": array for name, arrays in layers.items() for k, array in enumerate(arrays)}
    masks = state_dict_masks(plan, model, state, ignore=[f"{glob}/*" for glob in ignore])
    return {name: [masks.get(f"{name}/{k}") for k in range(len(arrays))] for name, arrays in layers.items()}


def _weights(plan: Plan, source: object) -> list[Weight]:
    """Every use of every weight, with what the plan keeps of it."""
    model = load(source)
    groups = plan.trace(model)
    cut = plan.element_removal(groups)
    tracing = groups.tracing
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in tracing.model.proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found, seen = [], set()
    for key, axes in tracing.weights_axes():
        name = tracing.weights[key]
        value = tracing.stored_value(name)
        if value is None or tracing.is_filled(name):
            continue
        seen.add(name)
        mask = cut.mask(value.shape, axes)
        keep = None if mask is None else np.array(np.broadcast_to(mask, value.shape))
        nodes = [n for n in readers.get(name, ()) if key == name or key.partition("@")[2].startswith(n.output[0] + ":")]
        paths = frozenset(p for n in nodes for p in _paths(n))
        found.append(Weight(name, key, value, keep, paths, is_bias=_is_bias(name, value, nodes)))
    for tensor in model.proto.graph.initializer:
        if tensor.name not in seen:
            paths = frozenset(p for n in readers.get(tensor.name, ()) for p in _paths(n))
            found.append(Weight(tensor.name, tensor.name, model.array(tensor), None, paths))
    return [w for w in found if w.value.dtype.kind == "f"]


def _is_bias(name: str, value: Array, nodes: Sequence[onnx.NodeProto]) -> bool:
    slots = {(n.op_type, slot) for n in nodes for slot, i in enumerate(n.input) if i == name}
    if value.size == max(value.shape, default=1) and slots and {operator for operator, _ in slots} <= {"Add", "Sub"}:
        return True
    return value.ndim < 2 or (bool(slots) and all(_BIASES.get(operator) == slot for operator, slot in slots))


def _paths(node: onnx.NodeProto) -> Iterable[str]:
    """The modules that a node is in, as the exporter wrote them."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                continue
            yield from (str(scope) for scope in scopes if scope)
    path = ""
    for part in node.name.strip("/").split("/")[:-1]:
        # "/layer1/layer1.0/conv1/Conv": a part of a sequence repeats the name of the sequence.
        last = path.rpartition(".")[2]
        path = (
            f"{path}{part.removeprefix(last)}" if last and part.startswith(f"{last}.") else f"{path}.{part}".strip(".")
        )
        yield path


def _found(floats: Mapping[str, Array], weights: list[Weight]) -> tuple[dict[str, Array], set[str]]:
    """Masks of all arrays, and the keys of the weights that they were found in."""
    index, rows = by_sizes(weights), RowPlaces(weights)
    masks: dict[str, Array] = {}
    used: set[str] = set()
    scaled: dict[str, list[Origin]] = {}
    missing: list[str] = []
    for name, array in floats.items():
        exact = origins(array, index) or rows.origins(array)
        if exact:
            masks[name] = _agreed(name, array, exact)
            used.update(o.weight.key for o in exact)
        elif found := scaled_origins(array, index):
            scaled[name] = found
            masks[name] = _agreed(name, array, found)
            used.update(o.weight.key for o in found)
        else:
            missing.append(name)
    norms = [n for n in _norms(floats) if any(name in missing for name in n.names)]
    for name, factors in _as_factors(norms, index).items():
        masks.setdefault(name, _agreed(name, floats[name], factors))
        used.update(o.weight.key for o in factors)
    masks |= _folded(floats, masks, scaled, missing, norms)
    missing = [name for name in missing if name not in masks]
    for name in list(missing):
        sibling = _sibling(name, floats, masks)
        if sibling is not None:
            masks[name] = sibling
            missing.remove(name)
    if missing:
        rest = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UsageError(
            f"{missing[0]!r}{rest} cannot be found in the model by name or by value",
            hint="export the model again from these values; ignore= names arrays that the model does not use",
        )
    return masks, used


def _agreed(name: str, array: Array, found: Sequence[Origin]) -> Array:
    """What an array keeps, where all weights that it may be agree, or where its name decides.

    Raises:
        UsageError: they do not.
    """
    whole = [o for o in found if (o.places >= 0).all()]
    if not whole:
        return _joined(name, found)
    for choice in (whole, _named(name, whole), _placed(name, whole)):
        masks = [o.weight.kept(o.places) for o in choice]
        if masks and all(np.array_equal(masks[0], m) for m in masks[1:]):
            return masks[0]
    places = ", ".join(sorted({o.weight.key for o in whole})[:3])
    raise UsageError(
        f"{name!r} has the same elements as {places}, which lose different positions",
        hint="take trained values, or export with the names of the weights (do_constant_folding=False)",
    )


def _joined(name: str, parts: Sequence[Origin]) -> Array:
    """What an array keeps whose rows are in several weights; rows that the model does not use go like the others.

    Raises:
        UsageError: some rows are nowhere, and the others do not lose the same.
    """
    mask, known = np.zeros((2, *parts[0].places.shape), bool)
    for part in parts:
        mine = part.places >= 0
        mask[mine], known[mine] = part.weight.kept(part.places[mine]), True
    rows = known.reshape(len(known), -1).all(1)
    if not rows.all():
        found = mask[rows]
        if len(found) < 2 or (found != found[0]).any():
            raise UsageError(f"{int((~rows).sum())} of the {len(rows)} rows of {name!r} are not in the model")
        mask[~rows] = found[0]
    return mask


def _named(name: str, found: Sequence[Origin]) -> list[Origin]:
    return [o for o in found if o.weight.name == name or o.weight.name.endswith(f".{name}")]


def _placed(name: str, found: Sequence[Origin]) -> list[Origin]:
    module = name.rpartition(".")[0]
    return [o for o in found if module and module in o.weight.paths]


# --- norms that were computed ahead, as factors or in weights ------------------------------------------------


def _as_factors(norms: Sequence[FoldableNorm], weights: Mapping[tuple[int, ...], list[Weight]]) -> _Origins:
    """The constants of the model that are the factors of norms, by the arrays of these: Keras multiplies by them."""
    found: dict[str, list[Origin]] = {}
    for norm in norms:
        vectors = weights.get(norm.scale[0].shape, [])
        factors = [w for w in vectors if any(_near(w.value.reshape(-1).astype(np.float64), s) for s in norm.scale)]
        found.update((name, [Origin(w, np.arange(w.value.size)) for w in factors]) for name in norm.names if factors)
    return found


def _folded(
    floats: Mapping[str, Array],
    masks: Mapping[str, Array],
    scaled: _Origins,
    missing: Sequence[str],
    norms: Sequence[FoldableNorm],
) -> dict[str, Array]:
    """Masks of the arrays of norms that were multiplied into weights, and of those weights' biases."""
    found: dict[str, Array] = {}
    for name, candidates in scaled.items():
        scale, axis = candidates[0].scale, candidates[0].axis
        assert scale is not None
        mask = _along(masks[name], axis)
        mine = [n for n in norms if any(_near(scale, s) for s in n.scale)]
        if len(mine) > 1:
            raise UsageError(
                f"the norm behind {name!r} may be {mine[0].names[0]!r} or {mine[1].names[0]!r}: they are equal",
                hint="take trained values, or export with the norms (do_constant_folding=False, or in training mode)",
            )
        if not mine:
            raise UsageError(
                f"{name!r} was multiplied by something that is no batch norm of the checkpoint",
                hint="export the model again from these values, without folding",
            )
        found.update((other, mask) for other in mine[0].names if other in missing)
        beside = [other for other in missing if _module(other) == _module(name) and floats[other].shape == mask.shape]
        if len(beside) == 1:  # the bias, which went into the norm's shift
            found[beside[0]] = mask
    return found


def _norms(floats: Mapping[str, Array]) -> list[FoldableNorm]:
    """Batch norms among the arrays of a checkpoint."""
    found = []
    for name in floats:
        for scale, shift, mean, variance in _NORMS:
            prefix = name.removesuffix(variance)
            if prefix == name or f"{prefix}{mean}" not in floats or prefix[-1:] not in (".", "/", ""):
                continue
            if variance.isdigit() and f"{prefix}{int(variance) + 1}" in floats:  # the list has more
                continue
            names = [n for n in (f"{prefix}{leaf}" for leaf in (scale, shift, mean, variance) if leaf) if n in floats]
            if floats[name].ndim != 1 or {floats[n].shape for n in names} != {floats[name].shape}:
                continue
            factor = floats.get(f"{prefix}{scale}", np.ones_like(floats[name])).astype(np.float64)
            spread = floats[name].astype(np.float64)
            found.append(FoldableNorm(names, [factor / np.sqrt(np.maximum(spread, 0) + e + 1e-300) for e in _EPSILONS]))
    return found


def _module(name: str) -> str:
    """The module or the layer that an array belongs to."""
    return name[: max(name.rfind("."), name.rfind("/"), 0)]


def _near(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool((np.abs(a - b) <= _ROUNDING * np.maximum(np.abs(a), np.abs(b))).all())


def _along(mask: Array, axis: int) -> Array:
    """What a mask keeps of one axis."""
    return np.asarray(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))


def _sibling(name: str, floats: Mapping[str, Array], masks: Mapping[str, Array]) -> Array | None:
    """What a bias of a recurrent layer keeps: its rows are those of the weights beside it.

    The exporter adds up two biases and puts the gates into another order.
    """
    if "bias_ih_l" not in name and "bias_hh_l" not in name:
        return None
    weight = name.replace("bias_", "weight_")
    return _along(masks[weight], 0) if weight in masks and len(floats[weight]) == len(floats[name]) else None


def _check_whole(weights: Sequence[Weight], used: set[str]) -> None:
    """Refuse masks that miss something: every weight that shrinks must be in the checkpoint.

    Biases that a norm was added to, and what is computed from others, are seen through the weight beside them.
    """
    lost = [w.key for w in weights if w.keep is not None and w.key not in used and not w.is_bias]
    if lost:
        raise UsageError(
            f"weight {lost[0]!r} of the model shrinks and is in no array of the checkpoint",
            hint="the model was exported from other values",
        )
