"""The proof of zeros."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.model import load, to_proto
from onnxprune.proof import prove_zeros
from onnxprune.proof.zeros import Claim, masked_original
from onnxprune.rewriting import ZeroStep, with_zeros
from onnxprune.sparsity import contraction_weights
from onnxprune.tracing import trace
from tests.graphs.net import run
from tests.pipelines.test_sparsify import DIGITS


def claim_of(model):
    groups = trace(model)
    weights, _ = contraction_weights(groups)
    rng = np.random.default_rng(0)
    steps = [ZeroStep(w.name, rng.random(w.shape) < 0.5) for w in weights]
    plain = with_zeros(groups, steps)
    return groups, Claim(steps, plain, plain, plain, {})


def test_the_proof_notices_a_wrong_element():
    groups, claim = claim_of(load(DIGITS))
    assert prove_zeros(groups, claim).ok
    proto = to_proto(claim.plain)
    tensor = next(t for t in proto.graph.initializer if t.name == "fc.weight")
    value = numpy_helper.to_array(tensor).copy()
    for place, says in ((value == 0, "not the original's with zeros"), (value != 0, "not the original's with zeros")):
        changed = value.copy()
        changed[tuple(np.argwhere(place)[0])] += 0.5
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
        wrong = load(onnx.ModelProto.FromString(proto.SerializeToString()))
        found = prove_zeros(groups, Claim(claim.steps, wrong, wrong, wrong, {}))
        assert not found.ok and says in found.problem


def test_the_reference_masks_at_run_time():
    groups, claim = claim_of(load(DIGITS))
    reference = masked_original(groups, claim.steps)
    assert sum(node.op_type == "Mul" for node in reference.proto.graph.node) == len(claim.steps)
    for one, other in zip(run(reference).values(), run(claim.plain).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
