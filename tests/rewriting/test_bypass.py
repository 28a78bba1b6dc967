"""Blocks taken out of the graph."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.model import to_proto
from tests.graphs.net import Net
from tests.pipelines.test_drop import assert_equal, dropped, residual, without_branch


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)])
def test_nodes_and_weights_are_gone_and_the_rest_is_equal(which: tuple[int, ...]):
    proto = residual().proto()
    before = proto.SerializeToString(deterministic=True)
    found = dropped(proto, blocks=tuple(f"layers.{i}" for i in which))
    assert proto.SerializeToString(deterministic=True) == before, "the input was changed"
    small = to_proto(found.model)
    assert not {t.name for t in small.graph.initializer} & {
        f"layers.{i}.{w}.weight" for i in which for w in ("up", "down")
    }
    assert len(small.graph.node) == 2 + 4 * (3 - len(which))
    onnx.checker.check_model(small, full_check=True)
    assert_equal(without_branch(proto, *(f"layers.{i}.down.weight" for i in which)), small)
    assert found.verdict is not None and found.verdict.ok and found.verdict.error < 1e-6


def test_a_stream_that_is_an_output_keeps_its_name():
    net = residual(2)
    net.output(net.nodes[4].output[0], ["batch", 8])
    found = dropped(net.proto(), blocks=("layers.0",))
    small = to_proto(found.model)
    assert [o.name for o in small.graph.output] == [o.name for o in net.proto().graph.output]
    assert_equal(without_branch(net.proto(), "layers.0.down.weight"), small)


def test_a_size_that_is_read_off_a_dropped_tensor():
    net = Net()
    x = net.add("MatMul", net.input(["batch", 6]), net.weight(6, 8))
    inner = net.add("MatMul", x, net.weight(8, 8, name="a.w"))
    x = net.add("Add", x, net.add("Relu", inner))
    shape = net.add("Shape", inner)
    y = net.add("Reshape", net.add("MatMul", x, net.weight(8, 8)), shape)
    net.output(y, ["batch", 8])
    found = dropped(net.proto(), count=1)
    assert found.verdict is not None and found.verdict.ok
    assert "a.w" not in {t.name for t in to_proto(found.model).graph.initializer}
