"""Forms and ranks that a weight may have: their costs are those of the model, and they lose what they say."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.model import Model
from onnxprune.names import FACTOR_FORMS
from onnxprune.pipelines.factor_options import WeightEnergy, factor_options
from onnxprune.pipelines.low_rank import factorised
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.rewriting.factorise import factorisable
from onnxprune.tracing import trace
from tests.graphs.net import Net, run


def convolution() -> Model:
    """A strided convolution with a kernel whose axes differ, padded on one side only."""
    net = Net()
    x = net.input(("batch", 8, 11, 9))
    made = net.add("Conv", x, net.weight(12, 8, 3, 5, name="w"), net.weight(12), pads=[1, 0, 0, 2], strides=[2, 1])
    net.output(made, ["batch", 12, 5, 7])
    return net.model()


@pytest.mark.parametrize("form", FACTOR_FORMS)
@pytest.mark.parametrize("data", [False, True])
def test_costs_and_losses_are_those_of_the_model(form, data):
    """One option of each form is carried out, and the outputs lose as much of their energy as was said."""
    rng = np.random.default_rng(0)
    mixed = np.einsum("bchw,dc->bdhw", rng.standard_normal((64, 3, 11, 9)), rng.standard_normal((8, 3)))
    feeds = {"x": (mixed + 0.1 * rng.standard_normal((64, 8, 11, 9))).astype(np.float32)}
    options = LowRankOptions(ranks={"w": 4}, forms=[form], allow_slower=True, in_sequence=False)
    model = convolution()
    done = factorised(model, options, RunInputs([feeds], 64) if data else RunInputs(sizes={"batch": 1}))
    assert done.verdict is not None and done.verdict.ok, done.verdict.problem
    (weight,) = done.weights
    assert weight.form == form and set(weight.ranks) == {4}
    (found,) = factorisable(trace(model))
    of = WeightEnergy(found, found.as_matrix(model.array("w")), None, fits=False)
    (option,) = factor_options(of, options, done.before.macs)
    assert option.costs["params"] == weight.elements[1] == done.after.params - 12
    assert option.costs["macs"] == pytest.approx(done.after.macs)
    if not data:
        assert option.lost == pytest.approx(weight.lost)
        return
    (one,), (other,) = run(done.model, feeds=feeds).values(), run(model, feeds=feeds).values()
    assert np.square(one - other).sum() / np.square(other).sum() == pytest.approx(weight.lost, abs=0.05)
    assert weight.lost < option.lost, "with data, what is lost is less"
