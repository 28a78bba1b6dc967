"""What a proof would notice."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.proof.strength import Strength
from onnxprune.report import data, text
from tests.graphs.net import Net, prune
from tests.proof.proven import five_groups


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
    assert "of 1 error planted in weights, a run noticed none" in text.proof(verdict)
    assert "equal" not in text.proof(verdict)
    assert data.verdict(verdict)["strength"] == {"noticed": 0, "tried": 1, "groups": 1, "unnoticed": ("w_in",)}


def test_a_proof_knows_its_strength() -> None:
    verdict = prune(five_groups()).verdict
    assert verdict is not None
    assert verdict.strength == Strength(5, {f"a{i}": True for i in range(5)})
    assert "; of 5 errors planted in weights, a run noticed 5" in text.proof(verdict)
