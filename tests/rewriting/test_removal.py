"""What a removal means for every tensor."""

from __future__ import annotations

import numpy as np
import onnx

import onnxprune
from onnxprune import api
from onnxprune.rewriting import Plan, Removal, carried_over
from onnxprune.tracing import Groups
from tests.graphs.net import Net, array_of, shapes_of


def test_masks_are_of_initializers_in_their_shape(plan: Plan, proto: onnx.ModelProto) -> None:
    masks, small = plan.masks(proto), onnxprune.apply(proto, plan)
    before, after = shapes_of(proto), shapes_of(small)
    assert set(masks) == {n for n in before if before[n] != after[n]} == {"stem", "bias", "ones", "grouped", "head"}
    for name, mask in masks.items():
        assert (mask.dtype, mask.shape) == (np.dtype(bool), before[name])
        np.testing.assert_array_equal(array_of(proto, name)[mask].reshape(after[name]), array_of(small, name))


def test_masks_name_initializers_only() -> None:
    """What a node fills is no weight that a trainer could mask."""
    from onnx import helper

    net = Net()
    x = net.make((2, 5, 8), 2)
    fill = helper.make_tensor("fill", 1, [1], [1.5])
    net.read(net.add("Mul", x, net.add("ConstantOfShape", net.ints(5, 8), value=fill)), 2)
    proto = net.proto()
    assert set(onnxprune.make_plan(proto, 0.5).masks(proto)) == {"w_in", "w_out"}


def test_masks_of_a_shared_constant_have_an_entry_per_use() -> None:
    from tests.tracing.test_graph_index import two_scales

    proto = two_scales(np.ones(8)).proto()
    masks = onnxprune.make_plan(proto, 0.5, ratios={"w_a": 0.25, "w_b": 0.75}).masks(proto)
    shared = {name: int(mask.sum()) for name, mask in masks.items() if name.startswith("scale")}
    assert sorted(shared.values()) == [2, 6]
    assert all(name.startswith("scale@") for name in shared)


def test_what_goes_is_carried_over_to_a_model_with_more_tensors() -> None:
    """A bias that a repair added belongs to the same units; names of groups play no part."""

    def traced(*, bias: bool) -> Groups:
        net = Net()
        hidden = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="up"), name="hidden")
        hidden = net.add("Add", hidden, net.const(np.ones(6, np.float32), name="shift")) if bias else hidden
        net.output(net.add("MatMul", net.add("Relu", hidden), net.weight(6, 3, name="down"), name="y"))
        return api.trace(net.proto())

    bare, biased = traced(bias=False), traced(bias=True)
    removed = np.zeros(bare.classes.count, bool)
    removed[bare.groups[0].classes[[1, 4]]] = True
    there = carried_over(bare, removed, biased)
    small = Removal(biased, there)
    assert [small.masks()[name].all(axis=0).tolist() for name in ("up",)] == [[True, False, True, True, False, True]]
    assert small.masks()["shift"].tolist() == [True, False, True, True, False, True]
    assert (carried_over(biased, there, bare) == removed).all()
