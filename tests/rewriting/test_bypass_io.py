"""Inputs and outputs of blocks that are taken out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import GoalMissed
from onnxprune.model import load, to_proto
from onnxprune.pipelines.drop import list_blocks
from onnxprune.pipelines.drop_options import DropOptions
from tests.graphs.net import Net, run
from tests.pipelines.test_drop import dropped, without_branch


def cached_decoder(layers: int = 3, width: int = 6) -> Net:
    """Layers of attention with a cache each; the first cache says how long the past is."""
    net = Net()
    x = net.add("MatMul", net.input([1, "tokens", 4], name="x"), net.weight(4, width))
    caches = [net.input([1, "past", width], name=f"past.{i}") for i in range(layers)]
    past = net.add("Gather", net.add("Shape", caches[0]), net.const(np.array(1)), axis=0)
    bias = net.add("Mul", net.add("Cast", past, to=1), net.const(np.float32(0.01)))
    for i in range(layers):
        keys = net.add("Concat", caches[i], net.add("MatMul", x, net.weight(width, width)), axis=1, name=f"present.{i}")
        scores = net.add("Add", net.add("MatMul", x, net.add("Transpose", keys, perm=[0, 2, 1])), bias)
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), keys)
        x = net.add("Add", x, net.add("MatMul", mixed, net.weight(width, width, name=f"layers.{i}.out.weight")))
        inner = net.add("Relu", net.add("MatMul", x, net.weight(width, 9, name=f"layers.{i}.up.weight")))
        x = net.add("Add", x, net.add("MatMul", inner, net.weight(9, width, name=f"layers.{i}.down.weight")))
    net.output(net.add("MatMul", x, net.weight(width, 3), name="logits"), [1, "tokens", 3])
    for i in range(layers):
        net.output(f"present.{i}", [1, "all", width])
    return net


def test_caches_keep_their_layers_by_default():
    found = list_blocks(load(cached_decoder().proto()), DropOptions())
    assert [b.block.kind for b in found] == ["block", "branch", "branch"] * 3
    assert [bool(b.why) for b in found] == [True, True, False] * 3
    with pytest.raises(GoalMissed, match="no block may go"):
        dropped(cached_decoder().proto(), count=1)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_caches_go_with_their_layers_and_the_rest_is_numbered_again(which: int):
    proto = cached_decoder().proto()
    found = dropped(proto, blocks=(f"layers.{which}",), allow_io_changes=True)
    assert found.verdict is not None and found.verdict.ok, found.verdict
    small = to_proto(found.model)
    assert [i.name for i in small.graph.input] == ["x", "past.0", "past.1"]
    assert [o.name for o in small.graph.output] == ["logits", "present.0", "present.1"]
    now = {change.name: change.now for change in found.io_renames}
    assert now == {f"{kind}.{which}": "" for kind in ("past", "present")} | {
        f"{kind}.{i}": f"{kind}.{i - 1}" for kind in ("past", "present") for i in range(which + 1, 3)
    }
    onnx.checker.check_model(small, full_check=True)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((1, 2, 4)), **{f"past.{i}": rng.standard_normal((1, 5, 6)) for i in range(3)}}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    wanted = run(without_branch(proto, f"layers.{which}.out.weight", f"layers.{which}.down.weight"), feeds=feeds)
    own = {now.get(name, name): value for name, value in feeds.items()}
    ran = run(small, feeds={i.name: own[i.name] for i in small.graph.input})
    for name, value in wanted.items():
        if now.get(name, name):
            np.testing.assert_allclose(ran[now.get(name, name)], value, atol=1e-5)
