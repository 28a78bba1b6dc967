"""Plans carried out: steps of every kind, in their order, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.pipelines.apply import execute
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import Plan

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")
DATA = str(MODELS / "digits_calibration.npz")


def test_units_go_and_the_proof_says_so() -> None:
    plan = onnxprune.make_plan(DIGITS, 0.25)
    done = execute(load(DIGITS), plan)
    assert done.verdict is not None and done.verdict.ok and done.judged is None
    assert done.model.nbytes < load(DIGITS).nbytes
    assert execute(load(DIGITS), plan, verify=False).verdict is None


def test_zeros_keep_the_sizes() -> None:
    plan = onnxprune.make_plan(DIGITS, 0.25)
    done = execute(load(DIGITS), plan, zero=True)
    shapes = [tuple(t.dims) for t in done.model.proto.graph.initializer]
    assert shapes == [tuple(t.dims) for t in load(DIGITS).proto.graph.initializer] and done.verdict is None
    filters = done.model.array("conv.weight").reshape(32, -1)
    assert (filters == 0).all(axis=1).sum() == len(plan.steps[0].remove)


def test_data_recover_and_judge() -> None:
    plan = onnxprune.make_plan(DIGITS, 0.5)
    fitted = execute(load(DIGITS), plan, data=DATA, samples=64)
    bare = execute(load(DIGITS), plan, data=DATA, samples=64, recovery=RecoveryOptions("none"))
    assert fitted.judged is not None and bare.judged is not None and fitted.judged.error < bare.judged.error
    assert fitted.recovery is not None and fitted.verdict is not None and fitted.verdict.ok


@pytest.mark.parametrize("kind", ["zero", "bypass", "factorise"])
def test_other_steps_are_carried_out_too(kind: str) -> None:
    plan = {
        "zero": lambda: onnxprune.sparsify(DIGITS, 0.5, only=["fc.weight"], verify=False).plan,
        "bypass": lambda: onnxprune.drop(DIGITS, count=1, verify=False).plan,
        "factorise": lambda: onnxprune.compress(DIGITS, ranks={"fc.weight": 16}, allow_slower=True, verify=False).plan,
    }[kind]()
    assert plan is not None
    done = execute(load(DIGITS), plan)
    assert done.verdict is not None and done.verdict.ok
    if kind == "zero":
        assert np.mean(done.model.array("fc.weight") == 0) == 0.5
    elif kind == "bypass":
        assert len(done.model.proto.graph.node) < len(load(DIGITS).proto.graph.node)
    else:
        assert "fc.weight" not in done.model.initializers


def test_a_plan_of_another_model_is_refused() -> None:
    with pytest.raises(UsageError):
        execute(load(str(MODELS / "mlp.onnx")), onnxprune.make_plan(DIGITS, 0.25))
    assert execute(load(DIGITS), Plan(())).model.nbytes == load(DIGITS).nbytes
