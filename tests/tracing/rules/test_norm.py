"""Labels through normalisation."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model import load
from tests.graphs.net import Net, group_of, prune, shapes_of
from tests.graphs.sandwich import Case, build, check_case, parameters

IMAGE = (2, 8, 5, 4)


def positive(net: Net, size: int, name: str) -> str:
    return net.const(np.abs(net.rng.standard_normal(size)).astype(np.float32) + 0.5, name)


def batch_norm(net: Net, x: str) -> str:
    given = [net.weight(8, name=n, scale=0.5) for n in ("scale", "bias", "mean")]
    return net.add("BatchNormalization", x, *given, positive(net, 8, "var"), epsilon=1e-3)


def instance_norm(channels: int = 8):
    def build(net: Net, x: str) -> str:
        return net.add(
            "InstanceNormalization", x, net.weight(channels, name="scale"), net.weight(channels, name="bias")
        )

    return build


def layer_norm(sizes: tuple[int, ...] = (8,), bias: bool = True, op: str = "LayerNormalization", **attrs):
    def build(net: Net, x: str) -> str:
        given = [net.weight(*sizes, name="scale", scale=0.5)]
        if bias:
            given.append(net.weight(*sizes, name="bias"))
        return net.add(op, x, *given, **attrs)

    return build


def layer_norm_statistics(net: Net, x: str) -> str:
    y, mean, _ = net.add("LayerNormalization", x, net.weight(8, name="scale"), outputs=3)
    return net.add("Add", y, mean)


def layer_norm_decomposed(net: Net, x: str) -> str:
    """As exporters before opset 17 write it."""

    def mean(y: str) -> str:
        return net.listed("ReduceMean", y, [-1], since=18)

    centred = net.add("Sub", x, mean(x))
    variance = mean(net.add("Pow", centred, net.const(np.float32(2))))
    root = net.add("Sqrt", net.add("Add", variance, net.const(np.float32(1e-5))))
    scaled = net.add("Mul", net.add("Div", centred, root), net.weight(8, name="scale"))
    return net.add("Add", scaled, net.weight(8, name="bias"))


def rms_decomposed(net: Net, x: str) -> str:
    mean = net.listed("ReduceMean", net.add("Mul", x, x), [-1], since=18)
    root = net.add("Sqrt", net.add("Add", mean, net.const(np.float32(1e-5))))
    return net.add("Mul", net.weight(8, name="scale"), net.add("Mul", x, net.add("Reciprocal", root)))


def group_norm(groups: int):
    def build(net: Net, x: str) -> str:
        size = 8 if net.opset >= 21 else groups
        scale, bias = net.weight(size, name="scale", scale=0.5), net.weight(size, name="bias")
        return net.add("GroupNormalization", x, scale, bias, num_groups=groups)

    return build


def group_norm_decomposed(net: Net, x: str) -> str:
    """As exporters before opset 18 write it: groups are instances."""
    rows = net.add("Reshape", x, net.ints(0, 2, -1))
    one, zero = net.const(np.ones(2, np.float32)), net.const(np.zeros(2, np.float32))
    normal = net.add("InstanceNormalization", rows, one, zero)
    back = net.add("Reshape", normal, net.ints(2, 8, 5, 4))
    return net.add("Mul", back, net.weight(8, 1, 1, name="scale"))


def plain(op: str, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add(op, x, **attrs)

    return build


SCALE, BIAS = {("scale", 0): 8}, {("bias", 0): 8}
BOTH = SCALE | BIAS
SOFTMAXES = ("Softmax", "LogSoftmax", "Hardmax")
LOCKED = {"units": 0, "why": "softmax axis"}

CASES = [
    Case("BatchNormalization", "2d", batch_norm, IMAGE, 1, 1, others=BOTH | {("mean", 0): 8, ("var", 0): 8}),
    Case("BatchNormalization", "1d", batch_norm, (2, 8, 5), 1, 1, others=BOTH),
    Case("BatchNormalization", "0d", batch_norm, (2, 8), 1, 1, others=BOTH),
    Case("BatchNormalization", "other-axis", batch_norm, (2, 8, 6), 2, 2, units=6, others={("scale", 0): "graph"}),
    Case("InstanceNormalization", "channels", instance_norm(), IMAGE, 1, 1, others=BOTH),
    Case("InstanceNormalization", "averaged", instance_norm(3), (2, 3, 8), exact=False),
    Case("LayerNormalization", "last", layer_norm(), exact=False, others=BOTH),
    Case("LayerNormalization", "no-bias", layer_norm(bias=False), exact=False, others=SCALE),
    Case("LayerNormalization", "two-axes", layer_norm((5, 8), axis=1), exact=False, others={("scale", 1): 8}),
    Case("LayerNormalization", "two-axes-outer", layer_norm((5, 8), axis=-2), (2, 5, 8), 1, 1, 5, exact=False),
    Case("LayerNormalization", "in-front", layer_norm(), (2, 5, 8), 1, 1, 5, others={("scale", 0): "graph"}),
    Case("LayerNormalization", "statistics", layer_norm_statistics, exact=False, others=SCALE),
    Case("ReduceMean", "layer-norm", layer_norm_decomposed, exact=False, others=BOTH),
    Case("ReduceMean", "rms-norm", rms_decomposed, exact=False, others=SCALE),
    Case("RMSNormalization", "last", layer_norm(bias=False, op="RMSNormalization"), exact=False, others=SCALE),
    Case("RMSNormalization", "in-front", layer_norm(bias=False, op="RMSNormalization"), (2, 5, 8), 1, 1, 5),
    Case("RMSNormalization", "two-axes", layer_norm((5, 8), False, "RMSNormalization", axis=1), exact=False),
    Case(
        "SimplifiedLayerNormalization",
        "",
        layer_norm(bias=False, op="SimplifiedLayerNormalization"),
        exact=False,
        others=SCALE,
    ),
    Case(
        "GroupNormalization",
        "two",
        group_norm(2),
        IMAGE,
        1,
        1,
        units=4,
        exact=False,
        since=21,
        others={("scale", 0): 4},
    ),
    Case("GroupNormalization", "four", group_norm(4), IMAGE, 1, 1, units=2, exact=False, since=21),
    Case("GroupNormalization", "instance", group_norm(8), IMAGE, 1, 1, others=SCALE, since=21),
    Case("GroupNormalization", "layer", group_norm(1), IMAGE, 1, 1, exact=False, since=21, others=SCALE),
    Case("GroupNormalization", "1d", group_norm(2), (2, 8, 5), 1, 1, units=4, exact=False, since=21),
    Case("GroupNormalization", "averaged", group_norm(2), (2, 8, 5), 2, 2, units=0, why="averaged over", since=21),
    Case(
        "InstanceNormalization",
        "group-norm",
        group_norm_decomposed,
        IMAGE,
        1,
        1,
        4,
        exact=False,
        others={("scale", 0): 4},
    ),
    Case("LRN", "channels", plain("LRN", size=3, alpha=0.5), IMAGE, 1, 1, exact=False),
    Case("LRN", "wide", plain("LRN", size=5, alpha=0.5, bias=2.0, beta=0.6), IMAGE, 1, 1, exact=False),
    Case("LRN", "spatial", plain("LRN", size=3), (2, 3, 8, 4), 2, 2),
    *(Case("LpNormalization", f"l{p}", plain("LpNormalization", p=p)) for p in (1, 2)),
    Case("LpNormalization", "axis", plain("LpNormalization", axis=1), (2, 8, 5), 1, 1),
    Case("LpNormalization", "across", plain("LpNormalization", axis=1)),
    Case("MeanVarianceNormalization", "default", plain("MeanVarianceNormalization"), IMAGE, 1, 1, exact=False),  # 0 / 0
    Case(
        "MeanVarianceNormalization",
        "averaged",
        plain("MeanVarianceNormalization", axes=[0, 1, 2, 3]),
        IMAGE,
        1,
        1,
        exact=False,
    ),
    *(Case(op, "along", plain(op, axis=-1), since=13, **LOCKED) for op in SOFTMAXES),
    *(Case(op, "default", plain(op), since=13, **LOCKED) for op in SOFTMAXES),
    *(Case(op, "across", plain(op, axis=1), since=13) for op in SOFTMAXES),
    *(Case(op, "old-along", plain(op, axis=2), until=12, **LOCKED) for op in SOFTMAXES),
    *(Case(op, "old-default", plain(op), until=12, **LOCKED) for op in SOFTMAXES),
    *(Case(op, "old-behind", plain(op, axis=1), until=12, **LOCKED) for op in SOFTMAXES),
    *(Case(op, "old-negative", plain(op, axis=-1), (2, 8, 5), 1, 1, since=11, until=12) for op in SOFTMAXES),
    *(Case(op, "old-in-front", plain(op, axis=2), (2, 8, 5), 1, 1, until=12) for op in SOFTMAXES),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_norm(case: Case, version: int) -> None:
    check_case(case, version)


def test_group_norm_with_a_scale_per_group() -> None:
    """Opset 18: onnx calls it deprecated, the runtime runs it; scales are cut with whole groups."""
    net = build(Case("GroupNormalization", "", group_norm(2), IMAGE, 1, 1), 18)
    outcome = prune(load(net.proto(), check=False))
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert shapes_of(outcome.model)["w_in"] == (3, 4)
    assert shapes_of(outcome.model)["scale"] == (1,)
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert (group.units, group.exact) == (2, True)
