"""Which blocks go."""

from __future__ import annotations

import onnx

from tests.pipelines.test_drop import data_of, dropped, residual


def test_the_block_that_does_least_goes():
    proto = residual().proto()
    for tensor in proto.graph.initializer:
        if tensor.name == "layers.1.down.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 0.01, tensor.name))
    for criterion in ("divergence", "influence"):
        found = dropped(proto, data_of(proto), count=1, criterion=criterion)
        assert [b.block.name for b in found.dropped] == ["layers.1"], criterion
        assert all(b.score is not None for b in found.blocks)


def test_budgets_are_met_or_missed():
    proto = residual().proto()
    found = dropped(proto, budgets={"params": "70%"})
    assert found.after.params <= 0.7 * found.before.params and all(goal.met for goal in found.goals)
    assert len(found.dropped) == 2
    with_data = dropped(proto, data_of(proto), budgets={"macs": "70%"})
    assert with_data.after.macs <= 0.7 * with_data.before.macs
    assert not dropped(proto, budgets={"params": "1%"}).goals[0].met
