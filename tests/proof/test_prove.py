"""The proof can fail, and says why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune import api
from onnxprune.errors import GoalMissed
from onnxprune.model import load
from onnxprune.pipelines import prune as pipeline
from onnxprune.proof import Verdict, bisect, prove
from onnxprune.proof.compare_outputs import difference
from onnxprune.proof.masked import masked
from onnxprune.proof.prove import tolerance_of
from onnxprune.proof.strength import Strength
from onnxprune.proof.verdict import compare
from onnxprune.report import data, text
from tests.graphs.net import Net, array_of, prune, run, with_arrays


def network() -> onnx.ModelProto:
    net = Net()
    x = net.input(["batch", 5, 3])
    x = net.add("Relu", net.add("MatMul", x, net.weight(3, 8, name="w1")))
    x = net.add("Add", net.add("MatMul", x, net.weight(8, 6, name="w2")), net.weight(6, name="bias"))
    net.output(net.add("MatMul", net.add("Tanh", x), net.weight(6, 4, name="w3")), ["batch", 5, 4])
    return net.proto()


@pytest.fixture(scope="module")
def outcome() -> api.Outcome:
    return prune(network())


def gone_of(outcome: api.Outcome) -> np.ndarray:
    return outcome.plan.removed(outcome.groups)


# --- the masked reference ----------------------------------------------------------------------------------


def test_the_reference_differs_from_the_original(outcome: api.Outcome) -> None:
    """Otherwise the comparison would say nothing."""
    original, reference = run(network()), run(masked(outcome.groups, gone_of(outcome)))
    for name, value in original.items():
        assert difference(value, reference[name]) > 100 * prove.TOLERANCES[1]


def test_the_reference_without_a_cut_is_the_original(outcome: api.Outcome) -> None:
    nothing = np.zeros(outcome.groups.classes.count, bool)
    original, reference = run(network()), run(masked(outcome.groups, nothing))
    for name, value in original.items():
        np.testing.assert_array_equal(value, reference[name])


def test_the_reference_zeroes_in_front_of_every_contraction(outcome: api.Outcome) -> None:
    """Equal to zeros in the rows of the reading weights."""
    proto, masks = network(), outcome.plan.masks(network())
    zeroed = {n: np.where(masks[n].any(axis=1, keepdims=True), array_of(proto, n), 0) for n in ("w2", "w3")}
    wanted = run(with_arrays(proto, {n: v.astype(np.float32) for n, v in zeroed.items()}))
    for name, value in run(masked(outcome.groups, gone_of(outcome))).items():
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-6)


def test_the_reference_of_a_norm_counts_the_remaining_positions_only() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    x = net.add("LayerNormalization", x, net.weight(8, name="scale"), net.weight(8, name="bias"))
    net.read(x, 2)
    proto = net.proto()
    outcome = prune(proto)
    assert not outcome.groups.groups[0].exact
    kept = outcome.plan.masks(proto)["w_in"][0]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)}
    hidden = (feeds["x"] @ array_of(proto, "w_in"))[..., kept]
    normal = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-5)
    normal = normal * array_of(proto, "scale")[kept] + array_of(proto, "bias")[kept]
    wanted = normal @ array_of(proto, "w_out")[kept]
    (reference,) = run(masked(outcome.groups, gone_of(outcome)), feeds=feeds).values()
    (small,) = run(outcome.model, feeds=feeds).values()
    np.testing.assert_allclose(reference, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(small, wanted, rtol=0, atol=1e-5)


def test_the_reference_masks_with_a_product_before_where_knew_floats() -> None:
    net = Net(7)
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    outcome = prune(net.proto())
    ops = [n.op_type for n in masked(outcome.groups, gone_of(outcome)).proto.graph.node]
    assert "Where" not in ops
    assert outcome.verdict is not None
    assert outcome.verdict.ok


# --- what fails --------------------------------------------------------------------------------------------


def spoil(model: onnx.ModelProto, name: str, change: Any) -> onnx.ModelProto:
    return with_arrays(model, {name: change(array_of(model, name).copy())})


def add_at(value: np.ndarray, amount: float) -> np.ndarray:
    value.reshape(-1)[0] += amount
    return value


def other_columns(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value[:, ::-1])


def test_the_right_model_passes(outcome: api.Outcome) -> None:
    small = onnxprune.apply(network(), outcome.plan)
    verdict = onnxprune.verify(network(), small, outcome.plan)
    assert verdict.ok
    assert verdict.problem == ""
    assert verdict.error <= 1e-6
    assert list(verdict.outputs) == [network().graph.output[0].name]
    assert len(verdict.checks) >= 4
    assert verdict.checks[-1] == "equal to the masked original"


@pytest.mark.parametrize(
    ("name", "change"), [("w1", lambda v: add_at(v, 0.05)), ("w1", other_columns), ("w3", other_columns)]
)
def test_other_values_fail(outcome: api.Outcome, name: str, change: Any) -> None:
    wrong = spoil(onnxprune.apply(network(), outcome.plan), name, change)
    verdict = onnxprune.verify(network(), wrong, outcome.plan)
    assert not verdict.ok
    assert "differs from the masked original" in verdict.problem
    assert verdict.error > verdict.tolerance


def test_other_units_fail(outcome: api.Outcome) -> None:
    other = onnxprune.prune(network(), 0.5, criterion="random", seed=3).model
    assert not onnxprune.verify(network(), other, outcome.plan).ok


def test_the_unpruned_model_fails(outcome: api.Outcome) -> None:
    assert not onnxprune.verify(network(), network(), outcome.plan).ok


def test_sizes_that_do_not_fit_fail(outcome: api.Outcome) -> None:
    wrong = spoil(onnxprune.apply(network(), outcome.plan), "w2", lambda v: np.vstack([v, v]))
    verdict = onnxprune.verify(network(), wrong, outcome.plan)
    assert not verdict.ok
    assert math.isnan(verdict.error)


def test_another_interface_fails(outcome: api.Outcome) -> None:
    for kind in ("input", "output"):
        wrong = onnxprune.apply(network(), outcome.plan)
        getattr(wrong.graph, kind)[0].type.tensor_type.shape.dim[0].dim_param = "other"
        verdict = onnxprune.verify(network(), wrong, outcome.plan)
        assert not verdict.ok
        assert verdict.problem == f"the graph {kind}s changed"


def test_weights_that_are_not_finite_fail_unless_the_original_has_them(outcome: api.Outcome) -> None:
    wrong = spoil(onnxprune.apply(network(), outcome.plan), "w3", lambda v: add_at(v, np.nan))
    verdict = onnxprune.verify(network(), wrong, outcome.plan)
    assert not verdict.ok
    assert verdict.error == math.inf


def test_an_original_that_does_not_run_is_not_rolled_back() -> None:
    """Nothing can be compared: the verdict says so, and the model is still made."""
    net = Net()
    x = net.make((2, 5, 8), 2)
    x = net.add("Relu", x)
    made = net.add("MatMul", x, net.weight(8, 4, name="w_out"))
    mystery = net.add("Mystery", net.inputs[0].name, domain="com.example")
    net.output(made, [2, 5, 4])
    net.output(mystery, [2, 5, 3])
    result = api.run(load(net.proto()), onnxprune.Options())
    assert result.verdict is not None
    assert not result.verdict.ok
    assert not result.verdict.runnable
    assert "original does not run" in result.verdict.problem
    assert result.rolled_back == ()


def test_an_empty_output_proves_nothing() -> None:
    """At the sizes that are tried first, seven halvings leave no pixel: larger ones must be found."""
    net = Net()
    x = net.input(["batch", 3, "height", "width"])
    for index in range(7):
        channels = 3 if not index else 4
        x = net.add("Conv", x, net.weight(4, channels, 3, 3, name=f"w{index}"), strides=[2, 2])
    net.output(x, ["batch", 4, "h", "w"])
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    assert 0 not in outcome.groups.static.shapes[x]


# --- the comparison ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], math.inf),
        ([np.nan, 1.0], [np.inf, 1.0], math.inf),
        ([1.0, 1.0], [np.nan, 1.0], math.inf),
        ([np.nan, np.nan], [np.nan, np.nan], 0.0),
        ([], [], 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_differences_of_floats(wanted: list[float], found: list[float], error: float, dtype: Any) -> None:
    assert difference(np.array(wanted, dtype), np.array(found, dtype)) == error


@pytest.mark.parametrize(("wanted", "found", "error"), [([1, 2], [1, 2], 0), ([1, 2], [1, 3], 0.5), ([], [], 0)])
def test_differences_of_integers(wanted: list[int], found: list[int], error: float) -> None:
    assert difference(np.array(wanted, np.int64), np.array(found, np.int64)) == error


def test_sequences_and_maps_are_compared_element_by_element() -> None:
    """Outputs of classical models: a list of maps from classes to probabilities."""
    good = [{"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}]
    assert difference(good, [dict(reversed(m.items())) for m in good]) == 0
    assert difference(good, [{"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}]) == pytest.approx(2 / 3)
    assert difference(good, good[:1]) == math.inf
    assert difference(good, [{"a": 0.5, "c": 0.5}, good[1]]) == math.inf
    assert difference([], []) == 0


def test_small_numbers_are_compared_on_their_own_scale() -> None:
    assert difference(np.array([1e-9], np.float32), np.array([2e-9], np.float32)) == pytest.approx(1.0)


def test_an_error_in_any_output_counts() -> None:
    good, bad = np.ones(3, np.float32), np.array([1, 1, 2], np.float32)
    verdict = compare(["a", "b", "c"], [good, good, good], [good, bad, good], dict.fromkeys("abc", 1e-4), [])
    assert not verdict.ok
    assert "output 'b'" in verdict.problem
    assert verdict.outputs == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert verdict.error == 1.0


def test_another_shape_is_an_error() -> None:
    verdict = compare(["a"], [np.ones((2, 3))], [np.ones((3, 2))], {"a": 1e-4}, [])
    assert not verdict.ok
    assert verdict.error == math.inf


def test_a_nan_difference_is_an_error() -> None:
    assert not compare(["a"], [np.ones(2)], [np.array([1, np.nan])], {"a": 1e-4}, []).ok


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9), (np.float16, 3e-2)])
def test_the_tolerance_is_that_of_the_least_precise_type(dtype: Any, tolerance: float) -> None:
    net = Net(dtype=dtype)
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    assert tolerance_of(api.trace(net.proto())) == tolerance


# --- rolling back ------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A rewrite that spoils the weights in this list when they are cut."""
    names: list[str] = []
    real = pipeline.rewrite

    def spoiled(groups: Any, removed: np.ndarray) -> Any:
        model = real(groups, removed)
        before = {t.name: tuple(t.dims) for t in groups.model.proto.graph.initializer}
        for tensor in model.proto.graph.initializer:
            if tensor.name in names and tuple(tensor.dims) != before[tensor.name]:
                value = numpy_helper.to_array(tensor) + 1
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return replace(model)

    for module in (pipeline, bisect):
        monkeypatch.setattr(module, "rewrite", spoiled)
    return names


def five_groups() -> onnx.ModelProto:
    net = Net()
    for index in range(5):
        x = net.make((2, 5, 8), 2, weight=f"a{index}")
        net.read(net.add("Relu", x), 2, weight=f"b{index}")
    return net.proto()


@pytest.mark.parametrize("bad", [["a0"], ["b4"], ["a1", "a3"], ["a0", "b1", "b2", "a3"]])
def test_groups_that_fail_are_left_whole_and_the_others_go(broken: list[str], bad: list[str]) -> None:
    broken.extend(bad)
    outcome = prune(five_groups())
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    failed = {f"a{name[1]}" for name in bad}
    assert {r.group for r in outcome.rolled_back} == failed
    assert {s.group for s in outcome.plan.steps if s.remove} == {f"a{i}" for i in range(5)} - failed
    for index in range(5):
        width = 8 if f"a{index}" in failed else 4
        assert array_of(outcome.model, f"a{index}").shape == (3, width)


def test_a_proof_names_the_group_at_once(broken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    broken.extend(["a1", "b3"])
    attempts, real = [], bisect._attempt
    monkeypatch.setattr(bisect, "_attempt", lambda *given: attempts.append(given) or real(*given))
    outcome = prune(five_groups())
    assert {r.group for r in outcome.rolled_back} == {"a1", "a3"}
    assert len(attempts) == 1


def test_of_two_groups_that_may_be_the_cause_both_are_tried(broken: list[str]) -> None:
    """The layer in the middle lost outputs with one and inputs with the other; only one of its two cuts is spoiled."""
    broken.append("w1")
    outcome = prune(network())
    assert {r.group for r in outcome.rolled_back} == {"w1"}
    assert array_of(outcome.model, "w2").shape == (8, 3)


def test_when_all_fail_nothing_is_made(broken: list[str]) -> None:
    broken.extend(f"a{i}" for i in range(5))
    with pytest.raises(GoalMissed, match="every group failed its proof"):
        prune(five_groups())


def test_no_proof_when_not_asked_for(broken: list[str]) -> None:
    broken.append("a0")
    result = onnxprune.prune(five_groups(), 0.5, verify=False)
    assert result.report.verdict is None
    assert result.report.rolled_back == ()


def test_a_verdict_says_what_was_checked() -> None:
    assert Verdict(True, 0.0, 1e-4).runnable
    assert Verdict(True, 0.0, 1e-4).checks == ()


# --- inside ------------------------------------------------------------------------------------------------


def behind(kind: str) -> onnx.ModelProto:
    """Two layers in front of an output that says little."""
    net = Net(18)
    x = net.add("Relu", net.add("MatMul", net.input([6, 16]), net.weight(16, 24, name="w1")))
    x = net.add("Relu", net.add("MatMul", x, net.weight(24, 20, name="w2")))
    x = net.add("MatMul", x, net.weight(20, 4, name="w3", scale=3e3 if kind in ("Softmax", "Tanh") else 0.3))
    if kind in ("Softmax", "LogSoftmax", "Hardmax"):
        y = net.add(kind, x, axis=1)
    elif kind == "ArgMax":
        y = net.add("ArgMax", x, axis=1)
    elif kind == "Clip":
        y = net.add("Clip", x, net.const(np.float32(1e3)), net.const(np.float32(1e4)))
    elif kind == "Greater":
        y = net.add("Greater", x, net.const(np.float32(50)))
    elif kind == "Inf":
        y = net.add("Div", net.add("Abs", x), net.const(np.float32(0)))
    elif kind == "TopK":
        y = net.add("TopK", x, net.ints(1), outputs=2)[1]
    elif kind == "Sigmoid":  # saturated: about 1e-8
        y = net.add("Sigmoid", net.add("Sub", x, net.const(np.float32(19))))
    else:
        y = net.add(kind, x)
    net.output(y)
    return net.proto()


VACUOUS = ("Softmax", "Tanh", "ArgMax", "Clip", "Greater", "Inf", "TopK", "Sign", "Hardmax", "Sigmoid")


@pytest.mark.parametrize("kind", VACUOUS)
def test_outputs_that_do_not_react_hide_nothing(kind: str) -> None:
    proto = behind(kind)
    result = onnxprune.prune(proto, 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert verdict.ok
    assert result.report.rolled_back == ()
    assert {"w1", "w2"} == {g for g in result.report.plan.masks(proto) if g != "w3"}
    assert len(verdict.inside) == 3
    assert verdict.strength == Strength(2, {"w1": True, "w2": True})
    for name in ("w1", "w2", "w3"):
        wrong = spoil(result.model, name, lambda v: scaled(v, int(np.abs(v).argmax())))
        refused = onnxprune.verify(proto, wrong, result.plan)
        assert not refused.ok
        assert "differs from the masked original" in refused.problem
        assert refused.wrong


def scaled(value: np.ndarray, place: int) -> np.ndarray:
    value.reshape(-1)[place] *= 1.5
    return value


@pytest.mark.parametrize("kind", VACUOUS)
def test_positions_that_are_swapped_behind_such_outputs_show(kind: str) -> None:
    proto = behind(kind)
    result = onnxprune.prune(proto, 0.5)
    wrong = spoil(result.model, "w2", lambda v: v[:, [1, 0, *range(2, v.shape[1])]])
    refused = onnxprune.verify(proto, wrong, result.plan)
    assert not refused.ok
    assert next(iter(refused.wrong.values())) == ("w1", "w2")


def dead() -> onnx.ModelProto:
    """A layer whose units no input wakes."""
    net = Net()
    x = net.add("Relu", net.add("Sub", net.add("Abs", net.make((2, 5, 8), 2)), net.const(np.float32(1e6))))
    net.read(x, 2)
    return net.proto()


def test_a_wrong_weight_behind_units_that_never_wake_is_refused() -> None:
    result = onnxprune.prune(dead(), 0.5)
    assert onnxprune.verify(dead(), result.model, result.plan).ok
    verdict = onnxprune.verify(dead(), spoil(result.model, "w_out", lambda v: scaled(v, 0)), result.plan)
    assert not verdict.ok
    assert verdict.problem == "weight 'w_out' of MatMul 'matmul_6_node' is not the original's without what goes"
    assert verdict.wrong == {"w_out": ("w_in",)}


def silent() -> onnx.ModelProto:
    """A network that multiplies its input by zero: no weight makes a difference."""
    net = Net()
    x = net.add("Mul", net.input([2, 3], "x"), net.const(np.float32(0)))
    x = net.add("Relu", net.add("MatMul", x, net.weight(3, 8, name="w_in")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w_out")))
    return net.proto()


def test_a_proof_that_would_notice_nothing_says_so() -> None:
    verdict = prune(silent()).verdict
    assert verdict is not None
    assert verdict.blind
    assert verdict.strength == Strength(1, {"w_in": False})
    assert "notices none of 1 weights made wrong on purpose" in text.proof(verdict)
    assert "equal" not in text.proof(verdict)
    assert data.verdict(verdict)["strength"] == {"noticed": 0, "tried": 1, "groups": 1, "unnoticed": ("w_in",)}


def test_a_proof_knows_its_strength() -> None:
    verdict = prune(five_groups()).verdict
    assert verdict is not None
    assert verdict.strength == Strength(5, {f"a{i}": True for i in range(5)})
    assert "a run notices 5 of 5 weights made wrong on purpose" in text.proof(verdict)


def squeezed(kind: str) -> onnx.ModelProto:
    """Layers wide enough for sums in another order to round otherwise, and what makes much of that."""
    net = Net(18)
    x = net.input([16, 16])
    for index, (n, m) in enumerate(((16, 700), (700, 700), (700, 700), (700, 8))):
        x = net.add("MatMul", net.add("Relu", x) if index else x, net.weight(n, m, name=f"w{index}"))

    def number(value: float) -> str:
        return net.const(np.float32(value), name="number" if not any(w.name == "number" for w in net.weights) else "")

    if kind == "Sigmoid":  # about 1e-8
        y = net.add("Sigmoid", net.add("Sub", x, number(17)))
    elif kind == "Tanh":  # about 1e-7
        y = net.add("Sub", net.const(np.float32(1)), net.add("Tanh", net.add("Add", net.add("Abs", x), number(7.5))))
    elif kind == "Sin":
        y = net.add("Sin", net.add("Mul", x, number(1e7)))
    elif kind == "Mod":
        y = net.add("Mod", x, number(1e-6), fmod=1)
    else:
        far = net.add("Mul", x, number(1e6))
        y = net.add("Sub", far, net.add("Round", far))
    net.output(y)
    return net.proto()


SQUEEZES = ("Sigmoid", "Tanh", "Sin", "Mod", "Round")


@pytest.mark.parametrize("kind", SQUEEZES)
def test_what_rounding_becomes_behind_the_last_layer_is_no_failure(kind: str) -> None:
    outcome = prune(squeezed(kind))
    assert outcome.rolled_back == ()
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    assert "outputs that amplify rounding from the layers before" in outcome.verdict.checks
    assert len(outcome.verdict.inside) == 4
    assert max(outcome.verdict.inside.values()) < 1e-5


@pytest.mark.parametrize("kind", SQUEEZES)
def test_another_function_behind_the_last_layer_is_a_failure(kind: str) -> None:
    result = onnxprune.prune(squeezed(kind), 0.5)
    wrong = spoil(result.model, "number", lambda v: v * np.float32(0.9))
    verdict = onnxprune.verify(squeezed(kind), wrong, result.plan)
    assert not verdict.ok
    assert list(verdict.wrong) == [squeezed(kind).graph.output[0].name]


@pytest.mark.parametrize("seed", range(4))
def test_zeros_that_rounding_fills(seed: int) -> None:
    """One channel is left, less its own mean: nothing, or what rounding makes of it."""
    net = Net(17, seed=seed)
    x = net.input([5, 6])
    made = net.add("MatMul", x, net.weight(6, 4, name="w_in"))
    mixed = net.add("MatMul", net.add("Softmax", net.input([5, 5]), axis=1), made)
    both = net.add("Add", made, mixed)
    less = net.add("Sub", both, net.add("ReduceMean", both, axes=[-1]))
    square = net.add("ReduceMean", net.add("Mul", less, less), axes=[-1])
    normed = net.add("Div", less, net.add("Sqrt", net.add("Add", square, net.const(np.float32(1e-2)))))
    scaled = net.add("Mul", normed, net.const(np.ones(4, np.float32), "scale"))
    net.output(net.add("MatMul", scaled, net.weight(4, 3)), [5, 3])
    outcome = prune(net.proto(), 0.9)
    assert outcome.rolled_back == ()
    assert array_of(outcome.model, "scale").shape == (1,)


def selected() -> onnx.ModelProto:
    """Layers on the rows that a mask selects: how many there are depends on values."""
    net = Net(17)
    x = net.add("MatMul", net.input([40, 16]), net.weight(16, 24, name="w1"))
    chosen = net.add(
        "Compress", net.add("Relu", x), net.add("Greater", net.input([40]), net.const(np.float32(0))), axis=0
    )
    x = net.add("Relu", net.add("MatMul", chosen, net.weight(24, 20, name="w2")))
    net.output(net.add("Softmax", net.add("MatMul", x, net.weight(20, 4, name="w3", scale=3e3)), axis=1))
    return net.proto()


def test_layers_behind_a_size_that_depends_on_values_are_compared() -> None:
    result = onnxprune.prune(selected(), 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert len(verdict.inside) == 3
    assert verdict.strength == Strength(2, {"w1": True, "w2": True})
    wrong = spoil(result.model, "w3", lambda v: scaled(v, int(np.abs(v).argmax())))
    assert "of MatMul" in onnxprune.verify(selected(), wrong, result.plan).problem


def halves() -> onnx.ModelProto:
    """Wide layers of numbers of half precision, and functions between them that are more than one operator."""
    net = Net(18, dtype=np.float16)
    x = net.input([8, 64])
    for index, (n, m) in enumerate(((64, 300), (300, 300), (300, 300), (300, 16))):
        x = net.add(
            "MatMul", net.add("Mul", x, net.add("Sigmoid", x)) if index else x, net.weight(n, m, name=f"w{index}")
        )
    net.output(x, [8, 16])
    return net.proto()


def test_half_precision_hides_no_more_than_a_step() -> None:
    """A small weight of 300 that is wrong by half of itself is of the size of some roundings in float16."""
    proto = halves()
    result = onnxprune.prune(proto, 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert verdict.ok
    assert result.report.rolled_back == ()
    assert 1e-4 < max(verdict.inside.values()) < prove.HALF_LAYER
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(12):
        name = f"w{rng.integers(0, 4)}"
        size = np.abs(array_of(result.model, name)).astype(np.float32)
        place = int(rng.choice(np.flatnonzero((size > 0.2 * size.mean()) & (size < 0.6 * size.mean()))))
        wrong = spoil(result.model, name, lambda v, place=place: scaled(v, place))
        refused = onnxprune.verify(proto, wrong, result.plan)
        assert not refused.ok
        found += "differs" in refused.problem
    assert found >= 10


def test_readers_of_a_tensor_share_its_zeros() -> None:
    net = Net()
    hidden = net.add("Relu", net.add("MatMul", net.input([2, 4], "x"), net.weight(4, 8)))
    for _ in range(3):
        net.output(net.add("MatMul", hidden, net.weight(8, 3)), [2, 3])
    outcome = prune(net.proto())
    removed = outcome.plan.removed(outcome.groups)
    reference = masked(outcome.groups, removed).proto
    assert [node.op_type for node in reference.graph.node].count("Where") == 1
    assert outcome.verdict is not None and outcome.verdict.ok
