"""What a recipe made, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.model import load
from onnxprune.pipelines.recipe_result import StepCost, StepReport, agreement_of, cost_of
from onnxprune.pipelines.run_inputs import RunInputs
from tests.graphs.net import Net


def model(zeros: int = 0, name: str = "x") -> Any:
    net = Net()
    w = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    w.reshape(-1)[:zeros] = 0
    net.output(net.add("MatMul", net.input(["n", 4], name), net.const(w, "w"), name="y"), ["n", 3])
    return load(net.proto())


DATA = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)


def test_costs() -> None:
    found = cost_of(model(5), {})
    assert (found.params, found.nonzeros, found.macs) == (12, 7, 12)
    assert found.bytes == len(onnx.load_from_string(model(5).proto.SerializeToString()).SerializeToString())


def test_a_step_is_kept_and_read_again() -> None:
    step = StepReport("prune", StepCost(1, 2, 3, 4), 1.5, {"proof": {"ok": True}})
    assert StepReport.from_json(step.as_json()) == step


@pytest.mark.parametrize("spoil", [{"cost": {}}, {"cost": 3}, {"seconds": "x"}, {"report": None}])
def test_what_is_no_step_is_none(spoil: dict[str, Any]) -> None:
    step = StepReport("prune", StepCost(1, 2, 3, 4), 1.5, {})
    assert StepReport.from_json(step.as_json() | spoil) is None and StepReport.from_json("x") is None


def test_outputs_are_compared_on_held_out_samples() -> None:
    same, other = (agreement_of(model(), m, RunInputs(DATA)) for m in (model(), model(5)))
    assert same is not None and other is not None and same.error < 1e-12 < 1e-3 < other.error


def test_what_cannot_be_compared_is_none() -> None:
    assert agreement_of(model(), model(), RunInputs()) is None
    assert agreement_of(model(), model(), RunInputs("random")) is None
    assert agreement_of(model(), model(name="z"), RunInputs(DATA)) is None
