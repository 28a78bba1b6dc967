"""Blocks of a residual stream, found by the structure of the graph."""

from __future__ import annotations

import pytest

from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.drop import list_blocks
from onnxprune.pipelines.drop_options import DropOptions
from tests.graphs.net import Net
from tests.pipelines.test_drop import MODELS, dropped, residual


def test_blocks_are_named_by_their_weights():
    found = list_blocks(load(residual().proto()), DropOptions())
    assert [(b.block.name, b.block.kind, b.params) for b in found] == [
        (f"layers.{i}", "block", 8 * 12 * 2) for i in range(3)
    ]
    assert [b.macs for b in found] == [8 * 12 * 2] * 3


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("vit", {"block": 2, "branch": 4}),
        ("bert", {"block": 2, "branch": 4, "run": 1}),
        ("gpt2", {"block": 2, "branch": 4}),
        ("llama", {"block": 2, "branch": 4}),
        ("swin", {"block": 3, "branch": 6}),
        ("resnet", {"block": 2, "run": 1}),
        ("preact_resnet", {"block": 1, "run": 1}),
        ("convnext", {"block": 2}),
        ("efficientnet", {"block": 2}),
        ("mobilenet_v2", {"block": 2}),
        ("resnext", {"block": 2}),
        ("encoder_decoder", {"block": 5}),
        ("vgg", {}),
        ("densenet", {}),
        ("unet", {"run": 1}),
    ],
)
def test_what_is_found_in_architectures(name: str, kinds: dict[str, int]):
    found = [b.block.kind for b in list_blocks(load(str(MODELS / f"{name}.onnx")), DropOptions())]
    assert {kind: found.count(kind) for kind in set(found)} == kinds


def test_a_tensor_that_is_read_outside_keeps_its_block():
    net = residual(2)
    net.output(net.add("MatMul", net.nodes[2].output[0], net.weight(12, 3)), ["batch", 3])
    first, second = list_blocks(load(net.proto()), DropOptions())
    assert "outside of it reads" in first.why and not second.why
    with pytest.raises(UsageError, match="must stay"):
        dropped(net.proto(), blocks=("layers.0",))


def test_an_output_from_inside_asks_for_a_change_of_the_interface():
    net = residual(2)
    net.output(net.nodes[2].output[0], ["batch", 12])
    assert "--allow-io-changes" in list_blocks(load(net.proto()), DropOptions())[0].why
    found = dropped(net.proto(), blocks=("layers.0",), allow_io_changes=True)
    assert [(c.kind, c.now) for c in found.io_renames] == [("output", "")]
    assert found.verdict is not None and found.verdict.ok
    assert len(to_proto(found.model).graph.output) == 1


def test_a_sum_of_two_streams_is_no_block():
    """The skip of an encoder must not be taken for a branch: what enters must be what all ways lead through."""
    net = Net()
    x = net.add("MatMul", net.input([2, 6]), net.weight(6, 6))
    y = net.add("Relu", net.add("MatMul", x, net.weight(6, 6, name="a.weight")))
    net.output(net.add("Add", x, y), [2, 6])
    (found,) = list_blocks(load(net.proto()), DropOptions())
    assert found.block.entry == x, "not the branch itself, whose other operand would then be dropped"


def test_runs_without_a_skip():
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input([2, 6]), net.weight(6, 8)))
    for name in ("a", "b"):
        x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8, name=f"{name}.weight")))
    net.output(net.add("MatMul", x, net.weight(8, 3)), [2, 3])
    assert [(b.block.name, b.block.kind) for b in list_blocks(load(net.proto()), DropOptions())] == [
        ("a", "run"),
        ("b", "run"),
    ]
    found = dropped(net.proto(), count=2)
    assert len(to_proto(found.model).graph.node) == 3 and found.verdict is not None and found.verdict.ok
