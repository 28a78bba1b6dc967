"""The proof of products."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.model import load, to_proto
from onnxprune.pipelines.low_rank import factorised
from onnxprune.proof.factorised import FactorClaim, prove_factors
from tests.pipelines.test_low_rank import DIGITS, HALF


def test_a_wrong_factor_is_refused():
    done = factorised(load(DIGITS), HALF)
    groups = done.groups
    for wrong in (1.5, -1.0):
        proto = to_proto(done.model)
        tensor = next(t for t in proto.graph.initializer if t.name == "fc.weight_first")
        value = onnx.numpy_helper.to_array(tensor).copy()
        value[np.unravel_index(np.abs(value).argmax(), value.shape)] *= wrong
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        claim = FactorClaim(done.plan.factors, load(proto), load(proto))
        assert not prove_factors(groups, claim).ok
