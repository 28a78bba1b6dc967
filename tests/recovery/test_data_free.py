"""Recovery without data: exact where the weights say all, nothing where they say nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.cli import main
from onnxprune.model import Model, load, to_proto
from onnxprune.recovery import METHODS, data_free, recover_without_data
from onnxprune.recovery import RecoveryOptions as Recovery
from onnxprune.rewriting import Removal
from onnxprune.runtime import Session
from onnxprune.tracing import Groups
from tests.graphs.net import Net

MODELS = Path(__file__).parents[2] / "models"
WIDTH = 8
VALID = ("dcgan", "densenet", "preact_resnet", "resnext", "inception", "einsum", "lstm", "double", "half")


def in_order(groups: Groups, _: np.random.Generator) -> np.ndarray:
    """Scores by which the first channels go."""
    return np.arange(groups.classes.count, dtype=float)


def run(model: Model, shape: tuple[int, ...]) -> np.ndarray:
    with Session(model) as session:
        (name,) = session.inputs
        return session.run({name: np.random.default_rng(1).standard_normal(shape).astype(np.float32)})[0]


def errors(net: Net, method: str) -> tuple[float, float]:
    """Relative error of the outputs without the first half of the channels: cut only, and repaired."""
    source = net.model()
    shape = tuple(d.dim_value for d in source.proto.graph.input[0].type.tensor_type.shape.dim)
    found = [api.run(source, Options(criterion=in_order), recovery=Recovery(how)) for how in ("none", method)]
    assert all(o.verdict is not None and o.verdict.ok for o in found)
    onnx.checker.check_model(to_proto(found[1].model), full_check=True)
    wanted = run(source, shape)
    cut, mended = (float(np.abs(run(o.model, shape) - wanted).max() / np.abs(wanted).max()) for o in found)
    return cut, mended


def normed(net: Net, x: str, *, deviations: np.ndarray) -> str:
    """A convolution and its BatchNormalization, of these scales."""
    made = net.add("Conv", x, net.weight(WIDTH, 3, 3, 3))
    rest = (net.const(net.rng.uniform(low, 2, WIDTH).astype(np.float32)) for low in (0.3, -1, 0.5))
    return net.add("BatchNormalization", made, net.const(deviations.astype(np.float32)), *rest)


def silu(net: Net, x: str) -> str:
    return net.add("Mul", x, net.add("Sigmoid", x))


def clipped(net: Net, x: str) -> str:
    return net.add("Clip", x, net.const(np.float32(0)), net.const(np.float32(0.5)))


def pooled(net: Net, x: str) -> str:
    return net.add("AveragePool", net.add("Relu", x), kernel_shape=[2, 2], pads=[1, 0, 0, 1])


def joined(net: Net, x: str) -> str:
    """Positions and channels in another order, twice."""
    turned = net.add("Transpose", net.add("Relu", x), perm=[0, 1, 3, 2])
    return net.add("Concat", turned, net.add("Tanh", x), axis=1)


def sliced(net: Net, x: str) -> str:
    return net.add("Slice", net.add("Relu", x), net.ints(1), net.ints(7), net.ints(2))


def split(net: Net, x: str) -> str:
    return net.add("Split", net.add("Relu", x), net.ints(5, 1), outputs=2, axis=2)[0]


def tiled(net: Net, x: str) -> str:
    return net.add("Tile", net.add("Relu", x), net.ints(1, 1, 2, 1))


def gathered(net: Net, x: str) -> str:
    return net.add("Gather", net.add("Relu", x), net.ints(5, 0, 3, 3, 1, 2), axis=3)


def plain(op: str) -> Callable[[Net, str], str]:
    return lambda net, x: net.add(op, x)


MOVED = {"sliced": sliced, "split": split, "tiled": tiled, "gathered": gathered}
BETWEEN = {"silu": silu, "clip": clipped, "pooled": pooled, "joined": joined, **MOVED} | {
    op: plain(op) for op in ("Relu", "HardSwish", "Sigmoid", "LeakyRelu", "Identity")
}


@pytest.mark.parametrize("tail", ["Conv", "Gemm"])
@pytest.mark.parametrize("between", BETWEEN)
def test_constant_channels_go_without_loss(between: str, tail: str):
    net = Net()
    deviations = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 1)
    x = BETWEEN[between](net, normed(net, net.input([2, 3, 8, 8]), deviations=deviations))
    if tail == "Conv":
        net.output(net.add("Conv", x, net.weight(5, net.probe(x).shape[1], 2, 3), strides=[2, 1], dilations=[1, 2]))
    else:
        flat = net.add("Flatten", x)
        net.output(net.add("Gemm", flat, net.weight(5, net.probe(flat).shape[1]), transB=1, alpha=0.5))
    cut, mended = errors(net, "bias")
    assert cut > 0.01 and mended < 1e-5


@pytest.mark.parametrize("mean", [-1.5, 0.0, 2.0])
def test_the_mean_of_a_rectified_normal_variable(mean: float):
    density, below = math.exp(-(mean**2) / 2) / math.sqrt(2 * math.pi), math.erfc(mean / math.sqrt(2)) / 2
    found = data_free.DENSITY @ np.maximum(mean + data_free.POINTS, 0)
    assert found == pytest.approx(mean * (1 - below) + density, abs=1e-4)


def test_a_sum_of_branches_has_the_mean_of_independent_ones():
    net = Net()
    x = net.input([1, 3, 6, 6])
    one, two = (normed(net, x, deviations=net.rng.uniform(0.5, 2, WIDTH)) for _ in range(2))
    total = net.add("Relu", net.add("Add", net.add("Relu", one), two))
    net.output(net.add("Conv", total, net.weight(5, WIDTH, 1, 1)))
    outcome = api.run(net.model(), Options())
    known = data_free.WeightMeans(Removal(outcome.groups, outcome.plan.removed(outcome.groups)))
    norms = {n.output[0]: n for n in net.nodes if n.op_type == "BatchNormalization"}
    values = {t.name: numpy_helper.to_array(t) for t in net.weights}
    drawn = []
    for name in (one, two):
        scale, shift = (values[norms[name].input[slot]] for slot in (1, 2))
        drawn.append(shift + scale * net.rng.standard_normal((200_000, WIDTH)))
    wanted = np.maximum(np.maximum(drawn[0], 0) + drawn[1], 0).mean(axis=0)
    # A rectified normal variable is none: what that leaves is a few percent.
    assert np.abs(known.mean(total)[0, :, 0, 0] - wanted).max() < 0.05 * wanted.max()


def doubled(net: Net, *shape: int, axis: int) -> str:
    """A weight whose channels are 4 copies and what they are copies of, each of another size."""
    half = net.rng.standard_normal([n // 2 if a == axis else n for a, n in enumerate(shape)])
    return net.const(np.concatenate([half, 2 * half], axis).astype(np.float32))


def folded(net: Net) -> str:
    return net.add("Conv", net.input([2, 3, 8, 8]), doubled(net, 8, 3, 3, 3, axis=0), doubled(net, 8, axis=0))


def unfolded(net: Net) -> str:
    """Channels that are copies after BatchNormalization only."""
    weight = net.rng.standard_normal((4, 3, 3, 3))
    x = net.add("Conv", net.input([2, 3, 8, 8]), net.const(np.concatenate([weight, 3 * weight]).astype(np.float32)))
    scale, shift = net.rng.standard_normal(4), net.rng.standard_normal(4)
    mean, variance = net.rng.standard_normal(4), net.rng.uniform(0.5, 2, 4)
    lines = ([scale, 2 * scale], [shift, 2 * shift], [mean, 3 * mean], [variance, 9 * variance])
    return net.add(
        "BatchNormalization", x, *(net.const(np.concatenate(v).astype(np.float32)) for v in lines), epsilon=0.0
    )


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Identity", "Relu MaxPool"])
@pytest.mark.parametrize("first", [folded, unfolded])
@pytest.mark.parametrize("tail", ["Conv", "Gemm"])
def test_duplicated_channels_go_without_loss(first: Callable[[Net], str], activation: str, tail: str):
    net = Net()
    x = first(net)
    for op in activation.split():
        x = net.add(op, x, **({"kernel_shape": [2, 2]} if op == "MaxPool" else {}))
    if tail == "Conv":
        net.output(net.add("Conv", x, net.weight(5, 8, 3, 3), pads=[1, 1, 1, 1]))
    else:
        flat = net.add("Flatten", x)
        net.output(net.add("Gemm", flat, net.weight(net.probe(flat).shape[1], 5), net.weight(5)))
    cut, mended = errors(net, "merge")
    assert cut > 0.01 and mended < 1e-5


@pytest.mark.parametrize("biased", [True, False])
def test_duplicated_neurons_of_products_go_without_loss(biased: bool):
    net = Net()
    x = net.add("MatMul", net.input([2, 5, 6]), doubled(net, 6, 8, axis=1))
    x = net.add("Relu", net.add("Add", doubled(net, 8, axis=0), x) if biased else x)
    net.output(net.add("MatMul", x, net.weight(8, 4)))
    cut, mended = errors(net, "merge")
    assert cut > 0.01 and mended < 1e-5


def unlike(net: Net) -> str:
    """Filters that are orthogonal."""
    filters = np.linalg.qr(net.rng.standard_normal((27, 8)))[0].T.reshape(8, 3, 3, 3)
    return net.add("Conv", net.input([2, 3, 8, 8]), net.const(filters.astype(np.float32)))


@pytest.mark.parametrize(
    ("first", "activation", "method"),
    [
        (unlike, "Relu", "merge"),
        (folded, "Sigmoid", "merge"),  # s f(x) is not f(s x)
        (folded, "Relu", "bias"),  # no BatchNormalization tells a mean
        (unfolded, "GlobalMaxPool", "bias"),  # the largest of how many?
    ],
)
def test_nothing_is_done_where_nothing_is_known(first: Callable[[Net], str], activation: str, method: str, caplog):
    net = Net()
    net.output(net.add("Conv", net.add(activation, first(net)), net.weight(5, 8, 1, 1)))
    outcome = api.run(net.model(), Options(criterion=in_order))
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    told: list[str] = []
    assert recover_without_data(cut, outcome.model, method, progress=told.append) is outcome.model
    assert told == ["repaired from the weights alone: 0 of 1 layers"]
    assert [r.message for r in caplog.records if "nothing is repaired" in r.message]


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if not m.needs_data])
@pytest.mark.parametrize("name", VALID)
def test_what_comes_out_is_valid(name: str, method: str):
    outcome = api.run(load(str(MODELS / f"{name}.onnx")), Options(ratio=0.5), recovery=Recovery(method))
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.recovery is None
    onnx.checker.check_model(to_proto(outcome.model), full_check=True)


def test_a_layer_behind_an_unknown_shape_is_left_alone():
    source, options = load(str(MODELS / "custom_op.onnx")), Options(ratio=0.5)
    cut, mended = (api.run(source, options, verify=False, recovery=Recovery(how)) for how in ("none", "merge"))
    assert to_proto(cut.model) == to_proto(mended.model)


def test_the_command_line_repairs_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging.getLogger("onnxprune"), "handlers", [])  # the command line's own go with the test
    made = {}
    for method in ("", "none", "merge", "bias"):
        out, asked = tmp_path / f"{method}.onnx", ("--recover", method) if method else ()
        arguments = ["prune", MODELS / "digits.onnx", "-o", out, "--ratio", "0.5", *asked, "-v"]
        assert main([*map(str, arguments)]) == 0
        said = capsys.readouterr().err
        assert ("repaired from the weights alone: 1 of 5 layers" in said) == (method == "merge")
        assert ("nothing is repaired" in said) == (method == "bias")
        assert ("hint: the layers that lost inputs were not re-fitted" in said) == (method == "")
        made[method] = {t.name: t.raw_data for t in onnx.load(out).graph.initializer}
    assert made[""] == made["none"] == made["bias"]
    assert sum(made["merge"][name] != value for name, value in made["none"].items()) == 1
