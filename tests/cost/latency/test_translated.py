"""Times of what is run in place of a model, in terms of the model's groups."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost.latency.prediction import Prediction, predict
from onnxprune.cost.latency.tables import Table, plan, proportional
from onnxprune.cost.latency.timer import alignments
from onnxprune.cost.latency.translated import Translated, in_terms_of
from onnxprune.model import Model
from onnxprune.runtime import quantizer
from tests.cost.latency.traced_models import ONE, traced
from tests.graphs.net import Net


def net(name: str = "w{}") -> Model:
    """Three convolutions of other widths each."""
    net = Net(opset=13, seed=0)
    x = net.input([1, 3, 8, 8], name="x")
    for made, read in ((32, 3), (24, 32), (16, 24)):
        x = net.add("Relu", net.add("Conv", x, net.weight(made, read, 3, 3, name=name.format(made)), pads=[1] * 4))
    net.output(net.add("Conv", x, net.weight(4, 16, 1, 1, name="w4")))
    proto = net.proto()
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}{number}"
    return Model(proto)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> tuple[Translated, Prediction]:
    """A prediction of the quantised model for the float one, with made-up tables, and the first alone."""

    def products(changing, *_):
        return [Table(o.letters, {n: float(np.prod(n)) * 1e-9 for n in plan(o)}) for o in changing]

    monkeypatch.setattr("onnxprune.cost.latency.prediction.tables", products)
    model = net()
    runs = [{"x": np.ones((1, 3, 8, 8), np.float32)}]
    options = {"per_channel": True, "weights": "int8", "activations": "uint8"}
    quantised = quantizer.quantized_static(model, runs, ["Conv2"], operators=False, **options)
    _, widths = traced(model)
    _, own = traced(quantised)
    nodes = {n.output[0]: 1e-3 for n in quantised.proto.graph.node if n.op_type == "Conv"}
    prediction = predict(own, {}, nodes, ONE)
    return in_terms_of(prediction, widths), prediction


def counts_of(own: Prediction, by_name: dict[str, int]) -> np.ndarray:
    """The same removal, told to the quantised model; a weight that stays in float keeps its name."""
    names = [g.name for g in own.widths.groups.groups]
    found = {n: by_name.get(n.removesuffix("_quantized"), 0) for n in names}
    assert sum(found.values()) == sum(by_name.values())
    return np.array([found[n] for n in names], np.int64)


def test_groups_are_those_of_the_model(case: tuple[Translated, Prediction]) -> None:
    both, own = case
    names = [g.name for g in both.widths.groups.groups]
    assert sorted(names) == ["w16", "w24", "w32"] and (both.group_of >= 0).all()
    for by_name in ({"w32": 8}, {"w24": 5, "w16": 3}):
        counts = np.array([by_name.get(n, 0) for n in names], np.int64)
        assert both.total(counts) == pytest.approx(own.total(counts_of(own, by_name)), rel=1e-12)
    nothing = np.zeros(3, np.int64)
    for group, name in enumerate(names):
        along = both.along(nothing, group, np.array([0, 4, 7]))
        wanted = [own.total(counts_of(own, {name: n})) for n in (0, 4, 7)]
        np.testing.assert_allclose(along, wanted, rtol=1e-12)
    assert set(alignments(both)) == set(names)
    assert set(both.layers) == {"Conv0", "Conv2", "Conv4", "Conv6"}


def test_a_group_that_only_the_model_has_changes_nothing(case: tuple[Translated, Prediction]) -> None:
    both, own = case
    lost = Translated(both.widths, own, np.full(3, -1))
    counts = np.array([3, 2, 1], np.int64)
    assert lost.total(counts) == own.total(np.zeros(3, np.int64))
    assert lost.along(counts, 0, np.array([0, 1])).tolist() == [lost.total(counts)] * 2
    assert alignments(lost) == dict.fromkeys(alignments(both), 1)


def test_measurements_correct_it(case: tuple[Translated, Prediction]) -> None:
    both, _ = case
    names = [g.name for g in both.widths.groups.groups]
    counts = np.array([16 if n == "w32" else 0 for n in names], np.int64)
    nodes = dict.fromkeys(both.prediction.outputs, 0.0009)
    own = both.prediction
    wanted = own.corrected(counts_of(own, {"w32": 16}), nodes, 3.6e-3)
    found = both.corrected(counts, nodes, 3.6e-3).total(counts)
    assert found == pytest.approx(wanted.total(counts_of(own, {"w32": 16})), rel=1e-12)
    assert found > 1.05 * both.total(counts)


@pytest.mark.parametrize("name", ["w{}", "{}", "onnx::Conv_{}"])
def test_groups_are_found_whatever_weights_are_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they cut: weights of numbers alone are called by their nodes, those that a quantiser stores are not."""
    monkeypatch.setattr("onnxprune.cost.latency.prediction.tables", lambda found, *_: [*map(proportional, found)])
    model = net(name)
    runs = [{"x": np.ones((1, 3, 8, 8), np.float32)}]
    options = {"per_channel": True, "weights": "int8", "activations": "uint8"}
    _, widths = traced(model)
    _, own = traced(quantizer.quantized_static(model, runs, ["Conv2"], operators=False, **options))
    both = in_terms_of(predict(own, {}, {}, ONE), widths)
    assert sorted(both.group_of) == [0, 1, 2]
    assert [own.units(i) for i in range(3)] == [widths.units(n) for n in both.group_of]
