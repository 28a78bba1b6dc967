"""Layers that read groups, and the moments of what enters them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.criteria.reader_moments import heaps, measured_readers
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
        np.testing.assert_allclose(reader.moment, wanted, atol=1e-5)
        weights = np.concatenate([array_of(proto, "w")[way], array_of(proto, "r")[way]], axis=1).T
        np.testing.assert_array_equal(reader.weight, weights)
        assert sorted(reader.owner[:6]) == sorted(entering.classes)
    assert not set(own[0].owner[6:]) & set(own[1].owner[6:])


@pytest.mark.parametrize("sizes", [[1] * 50, [7, 90, 3], [200]])
def test_rows_of_many_runs_are_heaped_and_none_is_lost(sizes: list[int]) -> None:
    rows = np.random.default_rng(3).standard_normal((1, sum(sizes), 4))
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    found = list(heaps(iter(parts), 20))
    np.testing.assert_array_equal(np.concatenate(found, axis=1), rows)
    assert all(heap.shape[1] >= 20 for heap in found[:-1])
    assert len(found) <= sum(sizes) // 20 + 1
