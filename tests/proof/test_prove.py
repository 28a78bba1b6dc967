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
from onnxprune.proof import bisect, prove
from tests.graphs.net import Net, array_of, prune
from tests.proof.proven import five_groups, network, scaled, spoil


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
