"""Whole blocks taken out: which are found, what goes, what the result equals, and what the repair gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.drop import drop_blocks, list_blocks
from onnxprune.pipelines.drop_options import DropInputs, DropOptions
from onnxprune.pipelines.dropped import Dropped
from tests.graphs.net import Net, feeds_of, run

MODELS = Path(__file__).parents[2] / "models"


def dropped(source: Any, data: Any = None, **options: Any) -> Dropped:
    return drop_blocks(load(source), DropOptions(**options), DropInputs(data))


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


# --- what is found ----------------------------------------------------------------------------------------


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


# --- what goes, and what the result equals ----------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["vit", "llama", "swin", "efficientnet", "half", "encoder_decoder", "fused", "double"])
def test_models_lose_a_block(name: str):
    found = dropped(str(MODELS / f"{name}.onnx"), count=1)
    assert found.verdict is not None and found.verdict.ok
    (gone,) = found.dropped
    assert found.before.params - found.after.params >= gone.params > 0
    assert not set(gone.block.weights) & {t.name for t in to_proto(found.model).graph.initializer}


# --- the choice -------------------------------------------------------------------------------------------


def data_of(proto: onnx.ModelProto, count: int = 64) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((count, 6)).astype(np.float32)}]


def test_the_block_that_does_least_goes():
    proto = residual().proto()
    for tensor in proto.graph.initializer:
        if tensor.name == "layers.1.down.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 0.01, tensor.name))
    for criterion in ("divergence", "influence"):
        found = dropped(proto, data_of(proto), count=1, criterion=criterion)
        assert [b.block.name for b in found.dropped] == ["layers.1"], criterion
        assert all(b.score is not None for b in found.blocks)


def test_what_stands_for_a_block_gives_most_back():
    """A block that is nearly linear can be replaced by what is fitted; the proofs hold before and after."""
    proto = residual(3, act="Identity").proto()
    found = dropped(proto, data_of(proto), blocks=("layers.1",))
    assert found.bare is not None and found.judged is not None
    assert found.judged.error < 1e-3 * found.bare.error
    assert found.repaired_verdict is not None and found.repaired_verdict.ok
    assert found.stand_ins[0].form != "none"


def test_without_recovery_nothing_is_fitted():
    proto = residual().proto()
    found = dropped(proto, data_of(proto), blocks=("layers.1",), recover=False)
    assert found.stand_ins == () and found.repaired_verdict is None and found.judged == found.bare
    assert_equal(without_branch(proto, "layers.1.down.weight"), to_proto(found.model))


def test_budgets_are_met_or_missed():
    proto = residual().proto()
    found = dropped(proto, budgets={"params": "70%"})
    assert found.after.params <= 0.7 * found.before.params and all(goal.met for goal in found.goals)
    assert len(found.dropped) == 2
    with_data = dropped(proto, data_of(proto), budgets={"macs": "70%"})
    assert with_data.after.macs <= 0.7 * with_data.before.macs
    assert not dropped(proto, budgets={"params": "1%"}).goals[0].met


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 4}, UsageError, "4 blocks are to go, and 3 may"),
        ({"blocks": ("nothing*",)}, UsageError, "no block is called"),
        ({"count": 1, "keep": ("*",)}, GoalMissed, "no block may go"),
        ({"count": 1, "criterion": "influence"}, UsageError, "looks at what the model computes"),
    ],
)
def test_what_cannot_be_done(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        dropped(residual().proto(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"count": 0},
        {"ratio": 0.0},
        {"ratio": float("nan")},
        {"count": 1, "ratio": 0.5},
        {"criterion": "best"},
        {"units": "layers"},
        {"budgets": {"latency": "1ms"}},
        {"budgets": {"params": "-3"}},
    ],
)
def test_options_that_are_none(options: dict[str, Any]):
    with pytest.raises(UsageError):
        DropOptions(**options)


# --- plans ------------------------------------------------------------------------------------------------


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


# --- caches of keys and values ----------------------------------------------------------------------------


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


def test_sizes_of_another_rank_that_are_read_off_a_dropped_tensor_are_not_computed():
    """Between the bypass and its end, nodes that read such sizes are dead, and must not run."""
    net = Net()
    x = net.add("MatMul", net.input([4, 6], name="x"), net.weight(6, 8))
    split = net.add("Reshape", net.add("MatMul", x, net.weight(8, 8, name="a.w")), net.ints(4, 2, 2, 2))
    last = net.add("Gather", net.add("Shape", split), net.ints(3), axis=0)
    merged = net.add("Mul", last, net.ints(4))
    inner = net.add("Reshape", split, net.add("Concat", net.ints(-1), merged, axis=0))
    x = net.add("Add", x, inner)
    net.output(net.add("MatMul", net.add("Relu", x), net.weight(8, 3)), [4, 3])
    proto = net.proto()
    found = dropped(proto, [{"x": feeds["x"]} for feeds in (feeds_of(proto, seed) for seed in range(4))], count=1)
    assert found.verdict is not None and found.verdict.ok and found.judged is not None
