"""Whole blocks taken out: which are found, what goes, what the result equals, and what the repair gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.drop import drop_blocks
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.run_inputs import RunInputs
from tests.graphs.net import Net, feeds_of, run

MODELS = Path(__file__).parents[2] / "models"


def dropped(source: Any, data: Any = None, **options: Any) -> Dropped:
    return drop_blocks(load(source), DropOptions(**options), RunInputs(data))


def residual(blocks: int = 3, width: int = 8, *, seed: int = 0, act: str = "Relu") -> Net:
    """Blocks x + W2 act(W1 x), one behind the other, in front of a classifier."""
    net = Net(seed=seed)
    x = net.add("MatMul", net.input(["batch", 6], name="x"), net.weight(6, width, name="stem.weight"))
    for i in range(blocks):
        inner = net.add(act, net.add("MatMul", x, net.weight(width, 12, name=f"layers.{i}.up.weight")))
        x = net.add("Add", x, net.add("MatMul", inner, net.weight(12, width, name=f"layers.{i}.down.weight")))
    net.output(net.add("MatMul", x, net.weight(width, 5, name="head.weight")), ["batch", 5])
    return net


def without_branch(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The same with zeros for the last weight of some branches."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for tensor in changed.graph.initializer:
        if tensor.name in names:
            value = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return changed


def assert_equal(one: onnx.ModelProto, other: onnx.ModelProto, tolerance: float = 1e-5) -> None:
    for seed in range(2):
        feeds = feeds_of(one, seed)
        wanted, found = run(one, feeds=feeds), run(other, feeds={i.name: feeds[i.name] for i in other.graph.input})
        for name, value in found.items():
            np.testing.assert_allclose(value, wanted[name], atol=tolerance * np.abs(wanted[name]).max())


@pytest.mark.parametrize("name", ["vit", "llama", "swin", "efficientnet", "half", "encoder_decoder", "fused", "double"])
def test_models_lose_a_block(name: str):
    found = dropped(str(MODELS / f"{name}.onnx"), count=1)
    assert found.verdict is not None and found.verdict.ok
    (gone,) = found.dropped
    assert found.before.params - found.after.params >= gone.params > 0
    assert not set(gone.block.weights) & {t.name for t in to_proto(found.model).graph.initializer}


def data_of(proto: onnx.ModelProto, count: int = 64) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((count, 6)).astype(np.float32)}]


def test_a_plan_finds_its_blocks_in_another_export():
    proto = residual().proto()
    result = onnxprune.drop(proto, blocks=["layers.1"])
    plan = onnxprune.Plan.from_json(result.plan.to_json())
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    stored = {t.name for t in other.graph.initializer}
    for node in other.graph.node:  # tensors of another exporter have other names
        node.input[:] = [i if i in stored or i == "x" else f"t_{i}" for i in node.input]
        node.output[:] = [f"t_{o}" for o in node.output]
    other.graph.output[0].name = f"t_{other.graph.output[0].name}"
    small = onnxprune.apply(other, plan)
    assert not {t.name for t in small.graph.initializer} & {"layers.1.up.weight", "layers.1.down.weight"}
    assert onnxprune.verify(proto, result.model, plan).ok
    wrong = without_branch(result.model, "layers.0.down.weight")
    assert not onnxprune.verify(proto, wrong, plan).ok
    with pytest.raises(UsageError, match=r"has no block 'layers\.1'"):
        onnxprune.apply(result.model, plan)
