"""Factors of a weight: which directions matter."""

from __future__ import annotations

import numpy as np

from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.pipelines.low_rank import factorised
from onnxprune.pipelines.run_inputs import RunInputs
from tests.graphs.net import Net, run


def test_the_second_moment_says_which_directions_matter():
    """Inputs that vary in two directions: a product of rank 2 loses nothing on them, and much by the weights alone."""
    net = Net()
    net.output(net.add("MatMul", net.input(("batch", 12)), net.weight(12, 12, name="w")), ["batch", 12])
    rng = np.random.default_rng(0)
    data = [{"x": (rng.standard_normal((64, 2)) @ rng.standard_normal((2, 12))).astype(np.float32)[None][0]}]
    lost = {}
    for method in ("whitened", "scaled", "plain"):
        options = LowRankOptions(ranks={"w": 2}, method=method, allow_slower=True, recover=False)
        done = factorised(net.model(), options, RunInputs(data, 64))
        assert done.verdict is not None and done.verdict.ok
        small, whole = run(done.model, feeds=data[0]), run(net.model(), feeds=data[0])
        (one,), (other,) = small.values(), whole.values()
        lost[method] = float(np.square(one - other).sum() / np.square(other).sum())
    assert lost["whitened"] < 1e-6 < 0.02 < min(lost["scaled"], lost["plain"])
