"""A model pruned: proofs, refusals, sizes and progress."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune import api
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, load
from tests.graphs.net import Net, run, shapes_of
from tests.test_api import network


@pytest.fixture
def proto() -> onnx.ModelProto:
    return network()


def only_with_products_of_91() -> onnx.ModelProto:
    """A model that runs on no inputs that anybody would guess."""
    net = Net()
    x = net.add("Reshape", net.input(["n", "m"]), net.ints(7, 13, 8))
    x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), [7, 13, 4])
    return net.proto()


def without_kernel() -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input([2, 3]), net.weight(3, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), [2, 4])
    net.output(net.add("Mystery", net.inputs[0].name, domain="com.example"), [2, 3])
    return net.proto()


@pytest.mark.parametrize("make", [only_with_products_of_91, without_kernel])
def test_nothing_comes_back_unproven(make: Any) -> None:
    """Nothing could be compared: neither `prune` nor `apply` returns a model, unless no proof is asked for."""
    plan = onnxprune.make_plan(make(), 0.5)
    calls = (
        lambda **given: onnxprune.prune(make(), 0.5, **given).model,
        lambda **given: onnxprune.apply(make(), plan, **given),
    )
    for call in calls:
        with pytest.raises(GoalMissed, match="not proven: the original does not run either") as caught:
            call()
        assert "verify=False" in caught.value.hint
        assert shapes_of(call(verify=False))["w1"][1] == 4


def test_a_wrong_rewrite_is_not_applied(proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apply` proves what it makes as `prune` does."""
    from onnxprune.pipelines import apply as applying

    plan = onnxprune.make_plan(proto, 0.5)
    made = applying.rewrite

    def spoiled(*given: Any) -> Model:
        small = made(*given)
        wrong = onnx.ModelProto()
        wrong.CopyFrom(small.proto)
        (weight,) = (t for t in wrong.graph.initializer if t.name == "w2")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, "w2"))
        return replace(small, proto=wrong)

    monkeypatch.setattr(applying, "rewrite", spoiled)
    with pytest.raises(GoalMissed, match=r"not proven: .* differs from the masked original"):
        onnxprune.apply(proto, plan)
    assert onnxprune.apply(proto, plan, verify=False) != proto


@pytest.mark.parametrize("ratio", [0.0, 0.1])
def test_a_ratio_that_removes_nothing(proto: onnx.ModelProto, ratio: float) -> None:
    result = onnxprune.prune(proto, ratio)
    assert result.model == proto
    assert result.report.verdict is not None
    assert result.report.verdict.ok


def test_nothing_to_prune() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input([2, 3]), net.weight(3, 4, name="w")))
    with pytest.raises(GoalMissed, match="nothing can be pruned") as caught:
        onnxprune.prune(net.proto(), 0.5)
    assert caught.value.exit_code == 1
    assert caught.value.hint


def test_dynamic_dims_stay_dynamic(proto: onnx.ModelProto) -> None:
    small = onnxprune.prune(proto, 0.5).model
    assert small.graph.input == proto.graph.input
    assert small.graph.output == proto.graph.output
    for batch in (1, 9):
        feeds = {"x": np.ones((batch, 5, 3), np.float32)}
        assert next(iter(run(small, feeds=feeds).values())).shape == (batch, 5, 4)


def test_sizes_for_symbols(proto: onnx.ModelProto) -> None:
    assert onnxprune.trace(proto, sizes={"batch": 9}).static.sizes == {"batch": 9}
    outcome = api.run(load(proto), onnxprune.Options(), sizes={"batch": 9})
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    assert outcome.plan.options["sizes"] == {"batch": 9}


def test_progress_is_told(proto: onnx.ModelProto) -> None:
    told: list[str] = []
    api.run(load(proto), onnxprune.Options(), progress=told.append)
    assert told == ["tracing", "scoring", "selecting", "rewriting", "proving", "counting"]


def test_a_rewrite_that_breaks_is_a_failed_proof(proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule's `resize` that raises is rolled back and reported, not a traceback."""
    from onnxprune.tracing.rules import registry

    monkeypatch.setattr(registry, "_RULES", {k: list(v) for k, v in registry._RULES.items()})

    def resize(edit: Any) -> None:
        raise ValueError("a bug in a rule")

    @registry.rule("Relu", resize=resize)
    def relu(view: Any) -> Any:
        """Broken when it follows."""
        return [view.labels(0)]

    with pytest.raises(onnxprune.errors.OnnxPruneError):
        onnxprune.prune(proto, 0.5)
