"""Factors of a weight: which directions matter."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.layers.factor_forms import Directions
from onnxprune.layers.low_rank import entering_basis, output_energy, spectrum, weight_behind
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


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_the_directions_lose_the_least_of_all_of_their_rank(shape):
    """Against the singular values of the whitened weight, and directions that are drawn."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, shape[0])) @ rng.standard_normal((shape[0], shape[0]))
    weight, second = rng.standard_normal(shape), rows.T @ rows
    found = spectrum(weight, second)
    wanted = np.linalg.svd(rows @ weight, compute_uv=False)[: min(shape)] ** 2
    np.testing.assert_allclose(found.energy, wanted, rtol=1e-4)
    basis = found.basis[:, :3]
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-9)
    lost = output_energy(weight - weight @ basis @ basis.T, second)
    np.testing.assert_allclose(lost, wanted[3:].sum(), rtol=1e-4)


@pytest.mark.parametrize("head", [4, 8])
def test_directions_of_what_enters_keep_a_weight_that_has_few(head):
    rng = np.random.default_rng(0)
    narrow = np.linalg.qr(rng.standard_normal((head, 2)))[0]
    weight = (narrow @ rng.standard_normal((2, 24 // head * 6))).reshape(24, 6)
    rows = rng.standard_normal((100, 24))
    basis = entering_basis(weight, rows.T @ rows, head)[:, :2]
    start = Directions("spatial", basis)
    np.testing.assert_allclose(start.product(start.entered(weight)), weight, atol=1e-9)
    rest = weight_behind(weight, start, (rows.T @ rows, rows.T @ rows @ weight))
    np.testing.assert_allclose(start.product(rest), weight, atol=1e-6)
