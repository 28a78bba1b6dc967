"""The proof of a model without blocks."""

from __future__ import annotations

from tests.graphs.net import Net, feeds_of
from tests.pipelines.test_drop import dropped


def test_sizes_of_another_rank_that_are_read_off_a_dropped_tensor_are_not_computed():
    """Between the bypass and its end, nodes that read such sizes are dead, and must not run."""
    net = Net()
    x = net.add("MatMul", net.input([4, 6], name="x"), net.weight(6, 8))
    split = net.add("Reshape", net.add("MatMul", x, net.weight(8, 8, name="a.w")), net.ints(4, 2, 2, 2))
    last = net.add("Gather", net.add("Shape", split), net.ints(3), axis=0)
    merged = net.add("Mul", last, net.ints(4))
    inner = net.add("Reshape", split, net.add("Concat", net.ints(-1), merged, axis=0))
    x = net.add("Add", x, inner)
    net.output(net.add("MatMul", net.add("Relu", x), net.weight(8, 3)), [4, 3])
    proto = net.proto()
    found = dropped(proto, [{"x": feeds["x"]} for feeds in (feeds_of(proto, seed) for seed in range(4))], count=1)
    assert found.verdict is not None and found.verdict.ok and found.judged is not None
