"""Criteria of gradients against what they stand for, computed by numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune import api, calibration, criteria
from tests.criteria.gradient_nets import GRADIENT
from tests.criteria.nets import batches, convolutions, scored

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("name", GRADIENT)
def test_a_unit_that_nobody_hears_goes_first(name: str) -> None:
    proto = convolutions()
    for tensor in proto.graph.initializer:
        if tensor.name in ("b", "c"):
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[:, 3] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    scores = scored(proto, name, "a", 0, runs=batches())
    assert scores[3] == 0 < np.delete(scores, 3).min()


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("model", ["bert", "mobilenet_v3", "lstm"])
def test_all_units_get_a_score(name: str, model: str) -> None:
    groups = api.trace(MODELS / f"{model}.onnx")
    runs = calibration.read("random", groups.model, samples=4)
    scores = criteria.score(groups, name, runs=runs)
    known = [scores[g.classes] for g in groups.groups]
    assert all((s >= 0).all() and np.isfinite(s).all() for s in known)
    assert sum(np.unique(s).size > 1 for s in known) > len(known) // 2
    np.testing.assert_array_equal(scores, criteria.score(groups, name, runs=runs))
