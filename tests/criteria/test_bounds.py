"""What bounds say of units that are constant."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model import load, to_proto
from onnxprune.pipelines.shrink import shrink_model
from onnxprune.proof.compare_outputs import difference
from tests.graphs.net import Net, run


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_channel_is_one_behind_an_instance_norm(value: float) -> None:
    """Its mean is the channel itself, so that the shift of the norm is left."""
    net = Net(seed=2)
    x = net.input([2, 3, 8, 8], "x")
    weight, bias = net.rng.standard_normal((6, 3, 3, 3)).astype(np.float32), np.zeros(6, np.float32)
    weight[2], bias[2] = 0, value
    y = net.add("Conv", x, net.const(weight), net.const(bias))
    y = net.add("InstanceNormalization", y, net.weight(6), net.weight(6))
    net.output(net.add("Conv", net.add("Relu", y), net.weight(4, 6, 3, 3)))
    model = net.model()
    found = shrink_model(load(model))
    assert [part.positions for part in found.removed] == [(2,)]
    wanted, made = run(model), run(to_proto(found.model))
    assert all(difference(one, made[name]) < 1e-5 for name, one in wanted.items())


def test_one_position_that_a_scalar_index_takes_keeps_its_rank() -> None:
    """The last step of a sequence: an index without axes takes the axis away."""
    net = Net(seed=6)
    x = net.input([2, 3, 8], "x")
    weight = net.rng.standard_normal((6, 3, 3)).astype(np.float32)
    weight[2] = 0
    y = net.add("Relu", net.add("Conv", x, net.const(weight)))
    y = net.add("Gather", y, net.const(np.array(-1)), axis=2)
    net.output(net.add("Gemm", y, net.weight(6, 4)))
    found = shrink_model(load(net.model()))
    assert [(part.cause, part.positions) for part in found.removed] == [("zero", (2,))]
