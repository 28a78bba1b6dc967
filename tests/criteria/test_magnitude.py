"""Norms of all that a unit holds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from tests.criteria.nets import DATA, batches, held, scored, values_of
from tests.graphs.net import Net, array_of


@pytest.mark.parametrize("aggregate", [None, "sum", "mean", "max", "norm"])
@pytest.mark.parametrize(("criterion", "norm"), [("l1", 1), ("l2", 2)])
def test_magnitude(net: onnx.ModelProto, criterion: str, norm: int, aggregate: str | None) -> None:
    how = aggregate or {"l1": "sum", "l2": "norm"}[criterion]
    combine = {"sum": sum, "mean": np.mean, "max": max, "norm": np.linalg.norm}[how]
    wanted = [combine([np.linalg.norm(part, norm) for part in parts]) for parts in held(net)]
    np.testing.assert_allclose(scored(net, criterion, "a", 0, aggregate=aggregate), wanted, rtol=1e-5)


def test_by_default_magnitude_is_the_norm_of_all_weights_together(net: onnx.ModelProto) -> None:
    for criterion, norm in (("l1", 1), ("l2", 2)):
        wanted = [np.linalg.norm(np.concatenate(parts), norm) for parts in held(net)]
        np.testing.assert_allclose(scored(net, criterion, "a", 0), wanted, rtol=1e-5)


def test_a_bias_counts_where_there_is_nothing_else_and_where_it_is_not_finite() -> None:
    net = Net()
    h = net.add("Add", net.add("MatMul", net.input([2, 6]), net.weight(6, 8, name="w")), net.weight(8, name="b"))
    net.read(h, 1)
    proto = net.proto()
    before = scored(proto, "l2", "w", 1)
    (bias,) = (t for t in proto.graph.initializer if t.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, 100, np.float32), "b"))
    np.testing.assert_array_equal(scored(proto, "l2", "w", 1), before)
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), "b"))
    with pytest.raises(UsageError, match=r"not finite: 'b'"):
        scored(proto, "l2", "w", 1)

    thin = Net()  # one input, one output: all its weights are vectors
    h = thin.add("Add", thin.add("MatMul", thin.input([2, 1]), thin.weight(1, 8, name="w")), thin.weight(8, name="b"))
    thin.output(thin.add("MatMul", h, thin.weight(8, 1, name="w_out")))
    held = [array_of(thin.proto(), name).reshape(8) for name in ("w", "b", "w_out")]
    np.testing.assert_allclose(scored(thin.proto(), "l2", "w", 1), np.linalg.norm(held, axis=0), rtol=1e-6)


@pytest.mark.parametrize("criterion", DATA)
def test_grouped_convolutions(criterion: str) -> None:
    """Channels of one group are read by the filters of that group alone."""
    net = Net()
    h = net.add("Relu", net.add("Conv", net.input(["n", 3, 6, 6]), net.weight(8, 3, 1, 1, name="a")), name="h")
    net.output(net.add("Conv", h, net.weight(6, 4, 1, 1, name="b"), group=2, name="y"), ["n", 6, 6, 6])
    proto, runs = net.proto(), batches()
    x = values_of(proto, "h", runs).transpose(1, 0, 2, 3).reshape(8, -1)
    b = array_of(proto, "b").astype(np.float64)[:, :, 0, 0]
    readers = [b[3 * (i // 4) : 3 * (i // 4) + 3, i % 4] for i in range(8)]
    wanted = {
        "activation": [np.abs(x[i]).mean() for i in range(8)],
        "apoz": [(x[i] != 0).mean() for i in range(8)],
        "wanda": [np.abs(readers[i]).sum() * np.sqrt(np.square(x[i]).mean()) for i in range(8)],
        "fluctuation": [np.square(readers[i]).sum() * x[i].var() for i in range(8)],
    }[criterion]
    np.testing.assert_allclose(scored(proto, criterion, "a", 0, runs=runs), wanted, rtol=1e-5)
