"""Layers that read groups, and the moments of what enters them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.criteria import reader_moments
from onnxprune.criteria.reader_moments import measured_readers, stacked
from onnxprune.runtime import SpillBuffer
from tests.criteria.nets import values_of
from tests.graphs.net import Net, array_of, group_of


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_gates_of_a_recurrent_layer_read_its_input_and_the_units_before(kind: str) -> None:
    """Both directions read the cut input, and units of their own; a GRU's candidate adds the two behind a gate."""
    net, gates = Net(), {"LSTM": 4, "GRU": 3}[kind]
    h = net.add("MatMul", net.input([7, 5, 3]), net.weight(3, 6, name="a"), name="h")
    w, r = net.weight(2, gates * 4, 6, name="w"), net.weight(2, gates * 4, 4, name="r")
    y, *_ = net.add(kind, h, w, r, outputs=2, name="rnn", hidden_size=4, direction="bidirectional")
    turned = net.add("Transpose", y, perm=[0, 2, 1, 3])
    net.output(net.add("MatMul", net.add("Reshape", turned, net.ints(7, 5, 8)), net.weight(8, 2)))
    proto = net.proto()
    groups = api.trace(proto)
    runs = [{"x": np.random.default_rng(i).standard_normal((7, 5, 3)).astype(np.float32)} for i in range(3)]
    x, y = (values_of(proto, name, runs).reshape(3, 7, -1, 5, size) for name, size in (("h", 6), ("rnn_0", 4)))
    whole = ((0, 0), (0, 0), (0, 0))
    before = [
        np.pad(y[:, :-1, 0], (whole[0], (1, 0), *whole[1:])),
        np.pad(y[:, 1:, 1], (whole[0], (0, 1), *whole[1:])),
    ]
    own = [reader for reader in measured_readers(groups, runs, SpillBuffer()) if reader.view.node.op_type == kind]
    assert [reader.way for reader in own] == [0, 1]
    entering = group_of(groups, "a", 1)
    assert entering is not None
    for way, reader in enumerate(own):
        rows = np.concatenate([x.reshape(-1, 6), before[way].reshape(-1, 4)], axis=1)
        wanted = np.cov(rows.T, bias=True)
        if kind == "GRU":
            wanted[:6, 6:] = wanted[6:, :6] = 0
        np.testing.assert_allclose(reader.inputs.second, wanted, atol=1e-5)
        weights = np.concatenate([array_of(proto, "w")[way], array_of(proto, "r")[way]], axis=1).T
        np.testing.assert_array_equal(reader.weight, weights)
        assert sorted(reader.owner[:6]) == sorted(entering.classes)
    assert not set(own[0].owner[6:]) & set(own[1].owner[6:])


@pytest.mark.parametrize("sizes", [[1] * 50, [7, 90, 3], [200], []])
def test_rows_are_put_together_and_none_is_lost(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_moments, "ROWS", 20)
    rows = np.random.default_rng(3).standard_normal((1, sum(sizes), 4)).astype(np.float32)
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    np.testing.assert_array_equal(stacked(iter(parts), 4), rows[0])


def test_layers_that_read_the_same_rows_share_their_moments() -> None:
    """Three products of one tensor, and one with its transpose; two windows over one image, and one that is wider."""
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input([5, 3]), net.weight(3, 6)))
    for other in range(3):
        net.output(net.add("MatMul", x, net.weight(6, 2, name=f"alike{other}")))
    net.output(net.add("Gemm", x, net.weight(4, 6, name="alike3"), transB=1))
    image = net.add("Relu", net.add("Conv", net.input([2, 3, 6, 6], name="image"), net.weight(4, 3, 1, 1)))
    for name, size, stride in (("one", 3, 1), ("same", 3, 1), ("strided", 3, 2), ("narrow", 1, 1)):
        net.output(net.add("Conv", image, net.weight(4, 4, size, size, name=name), strides=[stride] * 2))
    groups = api.trace(net.proto())
    rng = np.random.default_rng(0)
    shapes = {"x": (5, 3), "image": (2, 3, 6, 6)}
    runs = [{name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(3)]
    found = measured_readers(groups, runs, SpillBuffer())
    owners = {id(r.inputs): sorted(s.view.node.input[1] for s in found if s.inputs is r.inputs) for r in found}
    wanted = [["alike0", "alike1", "alike2", "alike3"], ["narrow"], ["one", "same"], ["strided"]]
    assert sorted(owners.values()) == wanted
    first = next(r for r in found if r.view.node.input[1] == "alike0")
    x = values_of(groups.model.proto, x, runs).reshape(-1, 6)
    np.testing.assert_allclose(first.inputs.second, np.cov(x.T, bias=True), atol=1e-5)
