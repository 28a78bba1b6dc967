"""Keep masks on the arrays that a model was exported from, whatever the exporter did to them; numpy alone."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.checkpoints import layer_masks, slice_layers, slice_state_dict, state_dict_masks
from onnxprune.checkpoints.origins import Weight, by_sizes, scaled_origins
from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from onnxprune.rewriting import Plan
from tests.graphs.net import Net

RNG = np.random.default_rng(0)
C, M, H = 3, 8, 6


def arrays() -> dict[str, np.ndarray]:
    """A checkpoint: a convolution with a batch norm, another convolution, two matrices."""
    return {
        "conv1.weight": RNG.standard_normal((M, C, 3, 3)).astype(np.float32),
        "bn1.weight": RNG.uniform(0.5, 1.5, M).astype(np.float32),
        "bn1.bias": RNG.standard_normal(M).astype(np.float32),
        "bn1.running_mean": RNG.standard_normal(M).astype(np.float32),
        "bn1.running_var": RNG.uniform(0.5, 1.5, M).astype(np.float32),
        "bn1.num_batches_tracked": np.array(7),
        "conv2.weight": RNG.standard_normal((M, M, 3, 3)).astype(np.float32),
        "conv2.bias": RNG.standard_normal(M).astype(np.float32),
        "fc1.weight": RNG.standard_normal((H, M)).astype(np.float32),
        "fc1.bias": RNG.standard_normal(H).astype(np.float32),
        "fc2.weight": RNG.standard_normal((4, H)).astype(np.float32),
    }


def network(state: dict[str, np.ndarray], *, folded: bool = True, renamed: bool = True) -> Model:
    """What an exporter may make of a checkpoint: norms folded, matrices turned around, names of its own."""
    net = Net()

    def const(name: str, value: np.ndarray) -> str:
        return net.const(value.astype(np.float32), f"onnx::{len(net.weights)}" if renamed else name)

    x = net.input([1, C, 8, 8])
    scale = state["bn1.weight"] / np.sqrt(state["bn1.running_var"] + 1e-5)
    if folded:
        weight = const("conv1.weight", state["conv1.weight"] * scale[:, None, None, None])
        x = net.add("Conv", x, weight, const("b", state["bn1.bias"] - state["bn1.running_mean"] * scale))
    else:
        x = net.add("Conv", x, const("conv1.weight", state["conv1.weight"]))
        names = [f"bn1.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
        x = net.add("BatchNormalization", x, *(const(n, state[n]) for n in names))
    x = net.add("Relu", x)
    x = net.add("Conv", x, const("conv2.weight", state["conv2.weight"]), const("conv2.bias", state["conv2.bias"]))
    x = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", x)))
    x = net.add("Add", net.add("MatMul", x, const("t", state["fc1.weight"].T)), const("fc1.bias", state["fc1.bias"]))
    net.output(net.add("Gemm", net.add("Relu", x), const("fc2.weight", state["fc2.weight"]), transB=1))
    return net.model()


def plan_of(model: Model) -> Plan:
    return onnxprune.make_plan(model, 0.5)


def expected(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is right, from the same units in a model that has the checkpoint as it is."""
    plain = network(state, folded=False, renamed=False)
    groups = onnxprune.trace(plain)
    masks = plan_of(plain).masks(plain)
    assert groups.groups
    return masks


@pytest.mark.parametrize("renamed", [False, True], ids=["named", "renamed"])
@pytest.mark.parametrize("folded", [False, True], ids=["norm", "folded"])
def test_every_unit_that_goes_goes_from_all_arrays(folded: bool, renamed: bool) -> None:
    state = arrays()
    model = network(state, folded=folded, renamed=renamed)
    plan = plan_of(model)
    masks = state_dict_masks(plan, model, state)
    small = slice_state_dict(state, masks)
    shapes = {name: array.shape for name, array in small.items()}
    assert shapes["conv1.weight"][0] == shapes["bn1.running_var"][0] == shapes["conv2.weight"][1] == M // 2
    assert shapes["conv2.weight"][0] == shapes["conv2.bias"][0] == shapes["fc1.weight"][1] == M // 2
    assert shapes["fc1.weight"][0] == shapes["fc1.bias"][0] == shapes["fc2.weight"][1] == H // 2
    # The exporter's model of the smaller checkpoint is the pruned model.
    again = network(small, folded=folded, renamed=renamed)
    pruned = load(onnxprune.apply(model, plan))
    for tensor in again.proto.graph.initializer:
        assert np.allclose(again.array(tensor.name), pruned.array(tensor.name), rtol=1e-6), tensor.name


def test_what_is_kept_is_what_a_model_with_the_checkpoint_itself_keeps() -> None:
    state = arrays()
    plain = network(state, folded=False, renamed=False)
    masks = state_dict_masks(plan_of(plain), plain, state)
    for name, mask in expected(state).items():
        if name in masks:
            assert np.array_equal(mask, masks[name])


def test_layers_of_keras_are_lists_in_its_own_order() -> None:
    state = arrays()
    model = network(state)
    layers = {
        "conv": [state["conv1.weight"].transpose(2, 3, 1, 0)],
        "norm": [state[f"bn1.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")],
        "second": [state["conv2.weight"].transpose(2, 3, 1, 0), state["conv2.bias"]],
        "dense": [state["fc1.weight"].T, state["fc1.bias"]],
        "head": [state["fc2.weight"].T],
    }
    plan = plan_of(model)
    small = slice_layers(layers, layer_masks(plan, model, layers))
    theirs = slice_state_dict(state, state_dict_masks(plan, model, state))
    assert np.array_equal(small["conv"][0], theirs["conv1.weight"].transpose(2, 3, 1, 0))
    assert np.array_equal(small["norm"][3], theirs["bn1.running_var"])
    assert np.array_equal(small["dense"][0], theirs["fc1.weight"].T)


@pytest.mark.parametrize("lists", ["beta, mean, variance", "gamma, mean, variance", "mean, variance", "all"])
@pytest.mark.parametrize("form", ["factor", "multiplied"])
def test_norms_of_keras_are_found_as_factors_and_in_kernels(form: str, lists: str) -> None:
    """Keras's exporter puts the factor of a norm into the kernel or multiplies by it, and adds the shift."""
    rng = np.random.default_rng(1)
    kernel, head = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 3, C, M), (M, 4)))
    gamma, beta, mean, variance = (rng.uniform(0.5, 1.5, M).astype(np.float32) for _ in range(4))
    gamma = gamma if lists in ("all", "gamma, mean, variance") else np.ones_like(gamma)
    beta = beta if lists in ("all", "beta, mean, variance") else np.zeros_like(beta)
    norm = {
        "all": [gamma, beta, mean, variance],
        "beta, mean, variance": [beta, mean, variance],
        "gamma, mean, variance": [gamma, mean, variance],
        "mean, variance": [mean, variance],
    }[lists]

    def exported(kernel: np.ndarray, arrays: list[np.ndarray], head: np.ndarray) -> Model:
        names = lists.split(", ") if lists != "all" else ("gamma", "beta", "mean", "variance")
        values = dict(zip(names, arrays, strict=True))
        factor = (values.get("gamma", 1) / np.sqrt(values["variance"] + 1e-3)).astype(np.float32)
        shift = (values.get("beta", 0) - values["mean"] * factor).astype(np.float32)
        net, weight = Net(), kernel.transpose(3, 2, 0, 1)
        x = net.input([1, C, 8, 8])
        if form == "factor":
            x = net.add("Mul", net.add("Conv", x, net.const(weight)), net.const(factor.reshape(1, -1, 1, 1)))
        else:
            x = net.add("Conv", x, net.const(weight * factor[:, None, None, None]))
        x = net.add("Relu", net.add("Add", x, net.const(shift.reshape(1, -1, 1, 1))))
        net.output(net.add("MatMul", net.add("Flatten", net.add("GlobalAveragePool", x)), net.const(head)))
        return net.model()

    model = exported(kernel, norm, head)
    plan, layers = plan_of(model), {"conv": [kernel], "norm": norm, "head": [head]}
    small = slice_layers(layers, layer_masks(plan, model, layers))
    assert [array.shape[-1] for array in (*small["conv"], *small["norm"])] == [M // 2] * (1 + len(norm))
    again, pruned = exported(small["conv"][0], small["norm"], small["head"][0]), load(onnxprune.apply(model, plan))
    for tensor in again.proto.graph.initializer:
        assert np.allclose(again.array(tensor.name), pruned.array(tensor.name), rtol=1e-6), tensor.name


def test_equal_norms_that_lose_different_positions_are_refused() -> None:
    rng = np.random.default_rng(1)
    variance = rng.uniform(0.5, 1.5, M).astype(np.float32)
    factor = (1 / np.sqrt(variance + 1e-3)).astype(np.float32).reshape(1, -1, 1, 1)
    net, layers = Net(), {}
    x = net.input([1, C, 8, 8])
    for number in range(2):
        kernel = rng.standard_normal((M, (C, M)[number], 3, 3))
        layers[f"conv{number}"] = [kernel.astype(np.float32).transpose(2, 3, 1, 0)]
        layers[f"norm{number}"] = [np.zeros(M, np.float32), variance]
        x = net.add("Conv", x, net.const(kernel.astype(np.float32)))
        x = net.add("Relu", net.add("Mul", x, net.const(factor)))
    head = rng.standard_normal((M, 4)).astype(np.float32)
    net.output(net.add("MatMul", net.add("Flatten", net.add("GlobalAveragePool", x)), net.const(head)))
    layers["head"] = [head]
    model = net.model()
    with pytest.raises(UsageError, match=r"'norm0/0' has the same elements as .*, which lose different positions"):
        layer_masks(plan_of(model), model, layers)


@pytest.mark.parametrize("joined", ["rows", "columns"])
def test_projections_that_were_joined_are_told_apart(joined: str) -> None:
    state = {f"{n}.weight": RNG.standard_normal((H, M)).astype(np.float32) for n in ("gate", "up")}
    state["down.weight"] = RNG.standard_normal((4, H)).astype(np.float32)
    net = Net()
    both = np.concatenate([state["gate.weight"], state["up.weight"]])
    x = net.input([2, M])
    if joined == "rows":
        y = net.add("Gemm", x, net.const(both), transB=1)
    else:
        y = net.add("MatMul", x, net.const(np.ascontiguousarray(both.T)))
    gate, up = net.add("Split", y, outputs=2, axis=1)
    y = net.add("Mul", net.add("Sigmoid", gate), up)
    net.output(net.add("MatMul", y, net.const(np.ascontiguousarray(state["down.weight"].T))))
    model = net.model()
    masks = state_dict_masks(plan_of(model), model, state)
    kept = {name: mask.any(0 if name == "down.weight" else 1) for name, mask in masks.items()}
    assert set(masks) == set(state)
    assert all(np.array_equal(line, kept["down.weight"]) and line.sum() == H // 2 for line in kept.values())


def test_values_of_another_training_are_refused() -> None:
    state = arrays()
    model = network(state)
    state["fc2.weight"] = state["fc2.weight"] + 1
    with pytest.raises(UsageError, match=r"'fc2.weight'.*cannot be found"):
        state_dict_masks(plan_of(model), model, state)


def test_a_missing_array_is_noticed() -> None:
    state = arrays()
    model = network(state)
    del state["conv2.weight"]
    with pytest.raises(UsageError, match="is in no array of the checkpoint"):
        state_dict_masks(plan_of(model), model, state)


def test_arrays_that_the_model_does_not_use_are_named_by_the_user() -> None:
    state = arrays()
    model = network(state)
    more = {**state, "aux.weight": np.ones((2, M), np.float32) * 3}
    with pytest.raises(UsageError, match=r"'aux.weight' cannot be found"):
        state_dict_masks(plan_of(model), model, more)
    assert set(state_dict_masks(plan_of(model), model, more, ignore=["aux.*"])) == set(
        state_dict_masks(plan_of(model), model, state)
    )


@pytest.mark.parametrize("leaf", ["bias", "running_mean"])
def test_equal_arrays_that_lose_different_positions_are_refused_or_told_by_name(leaf: str) -> None:
    state = arrays()
    state["conv2.bias"] = state[f"bn1.{leaf}"] = np.zeros(M, np.float32)
    named = network(state, folded=False, renamed=False)
    masks = state_dict_masks(plan_of(named), named, state)
    assert not np.array_equal(masks["conv2.bias"], masks[f"bn1.{leaf}"])
    renamed = network(state, folded=False)
    with pytest.raises(UsageError, match="the same elements"):
        state_dict_masks(plan_of(renamed), renamed, state)


def test_equal_norms_behind_folded_weights_are_refused() -> None:
    state = arrays()
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        state[f"bn9.{leaf}"] = state[f"bn1.{leaf}"]
    model = network(state)
    with pytest.raises(UsageError, match="they are equal"):
        state_dict_masks(plan_of(model), model, state)


def test_masks_of_other_arrays_are_refused() -> None:
    with pytest.raises(UsageError, match="no array 'b'"):
        slice_state_dict({"a": np.ones(3)}, {"b": np.ones(3, bool)})
    with pytest.raises(UsageError, match=r"'a' has shape \[3\]"):
        slice_state_dict({"a": np.ones(3)}, {"a": np.ones(4, bool)})
    rows = np.array([[1, 1, 0], [1, 0, 0]], bool)
    with pytest.raises(UsageError, match="different numbers"):
        slice_state_dict({"a": np.ones((2, 3))}, {"a": rows})


def test_rows_may_lose_different_positions() -> None:
    mask = np.array([[1, 0, 1], [1, 1, 0]], bool)
    small = slice_state_dict({"a": np.arange(6).reshape(2, 3)}, {"a": mask})["a"]
    assert small.tolist() == [[0, 2], [3, 4]]


def test_single_elements_are_not_taken_for_scaled_ones() -> None:
    weight = Weight("w", "w", RNG.standard_normal((M, 1)).astype(np.float32), None)
    assert not scaled_origins(RNG.standard_normal((M, 1)).astype(np.float32), by_sizes([weight]))
    wide = Weight("w", "w", RNG.standard_normal((M, 3)).astype(np.float32), None)
    assert not scaled_origins(RNG.standard_normal((M, 3)).astype(np.float32), by_sizes([wide]))
    scale = RNG.uniform(0.5, 2, (M, 1)).astype(np.float32)
    (found,) = scaled_origins(wide.value / scale, by_sizes([wide]))
    assert np.allclose(found.scale, scale[:, 0], rtol=1e-5)
