"""Where axes that groups cut are summed over."""

from __future__ import annotations

from onnxprune import api
from onnxprune.criteria.places import classes_in_groups, places_of
from onnxprune.tracing import Groups
from tests.graphs.net import Net


def chain() -> Groups:
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w1")), name="h")
    net.output(net.add("MatMul", h, net.weight(6, 3, name="w2"), name="y"))
    return api.trace(net.proto())


def test_a_product_reads_its_units() -> None:
    groups = chain()
    (place,) = places_of(groups, ())
    assert place.tensor == "h" and place.layer is not None and place.folds and place.name.startswith("MatMul")
    assert sorted(place.classes) == sorted(groups.groups[0].classes) and place.tensors >= {"h"}


def test_a_layer_whose_output_may_not_change_folds_nothing() -> None:
    (place,) = places_of(chain(), {"y"})
    assert not place.folds


def test_a_weight_that_two_layers_share_is_not_folded_into() -> None:
    net = Net()
    w2 = net.weight(6, 3, name="w2")
    for i in range(2):
        h = net.add("Relu", net.add("MatMul", net.input([2, 4]), net.weight(4, 6)), name=f"h{i}")
        net.output(net.add("MatMul", h, w2, name=f"y{i}"))
    found = list(places_of(api.trace(net.proto()), ()))
    assert [p.tensor for p in found] == ["h0", "h1"] and not any(p.folds for p in found)


def test_classes_without_a_group_are_none() -> None:
    groups = chain()
    inputs = groups.tracing.axes["w1"]
    assert (classes_in_groups(groups, inputs[1]) >= 0).all() and (classes_in_groups(groups, inputs[0]) == -1).all()
