"""The table of traits: a row for every rule, the sets that packages ask it for, and facts that a run confirms."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from onnx import TensorProto, defs

from onnxprune import api
from onnxprune.autodiff import straight_line
from onnxprune.cost.functions import ALIASES
from onnxprune.layers import effective, parameters
from onnxprune.model import byte_sums, graph, load, rank_of_inputs, telling_tensors
from onnxprune.model.shapes import scan
from onnxprune.model.traits import TRAITS, operators_where
from onnxprune.proof import quantized
from onnxprune.recovery import data_free, downstream
from onnxprune.runtime import random_inputs
from onnxprune.tracing import computed_weights
from onnxprune.tracing.rules.registry import all_rules
from tests.graphs.net import Net, run


def test_every_operator_with_a_rule_has_a_row() -> None:
    without = {(rule.domain, rule.op) for rule in all_rules()} - set(TRAITS)
    assert not without, "add a row to onnxprune/model/traits.py, if only to `_each(...)` without any trait"


# Operators that move the elements of their first input without looking at them: all of them, for every package.
MOVED = (
    "Compress DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Reshape ReverseSequence Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze"
)
SETS: dict[str, tuple[Collection[str], str]] = {
    "moved numbers": (graph.MOVES, f"{MOVED} Cast"),
    "ways of random ids": (random_inputs._CARRIERS, f"{MOVED} Cast Clip"),
    "ways of quantised numbers": (quantized._CARRIERS, f"{MOVED} MaxPool"),
    "own means": (
        data_free.LINEAR,
        f"{MOVED} AveragePool Dropout GlobalAveragePool Add Concat ReduceMean ReduceSum Sub Sum",
    ),
    "homogeneous": (
        data_free.HOMOGENEOUS,
        "AveragePool Dropout Flatten GlobalAveragePool Identity Reshape GlobalMaxPool LeakyRelu MaxPool Relu",
    ),
    "shares": (telling_tensors.SQUEEZING, "Softmax Sigmoid"),
    "sizes": (telling_tensors.TELLS_SIZES, "Shape Size"),
    "fold a norm": (effective.FOLDING, "Conv ConvTranspose Gemm MatMul"),
    "ways of weights": (effective.WEIGHT_CARRIERS, "Cast DequantizeLinear Identity"),
    "share memory": (ALIASES, "Reshape Squeeze Unsqueeze Flatten Identity"),
    "sums": (downstream.SUMS - downstream.NORMED, "Add Sum"),
    "sums with a norm": (downstream.NORMED, "SkipLayerNormalization SkipSimplifiedLayerNormalization"),
    "random numbers": (
        straight_line._RANDOM,
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    ),
    "random weights": (
        computed_weights._RANDOM,
        "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial Dropout",
    ),
    "sizes of graphs without branches": (straight_line._SHAPES, "Shape Size"),
    "same": (downstream.SAME, "Identity Dropout"),
    "laid out": (downstream.LAID_OUT, "Reshape Flatten Squeeze Unsqueeze"),
}


@pytest.mark.parametrize("name", SETS)
def test_sets_of_operators(name: str) -> None:
    found, wanted = SETS[name]
    assert sorted(found) == sorted(wanted.split())


def test_slots_of_operators() -> None:
    assert parameters.NORMS == {
        "BatchNormalization": (1, 2, 1),
        "InstanceNormalization": (1, 2, 1),
        "GroupNormalization": (1, 2, 1),
        "LayerNormalization": (1, 2, -1),
        "RMSNormalization": (1, None, -1),
    }
    assert {op: slots for op, slots in byte_sums._FACTORS.items() if slots} == {
        "ConvInteger": ((1, 3),),
        "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
        "DynamicQuantizeMatMul": ((1, 3),),
        "MatMulInteger": ((1, 3),),
        "MatMulIntegerToFloat": ((1, 5),),
        "QGemm": ((3, 5),),
        "QLinearConv": ((3, 5),),
        "QLinearMatMul": ((3, 5),),
    }
    assert {
        **dict.fromkeys(("Gather", "GatherND", "GatherElements"), ((1, 0),)),
        "EmbedLayerNormalization": ((0, 2), (1, 4), (8, 3)),
    } == random_inputs._TABLES
    assert {"Relu": (0.0, np.inf), "HardSwish": (-3.0, np.inf)} == downstream.FLAT


def test_pointwise_rules_are_elementwise() -> None:
    """What the rules say of labels and what the table says of positions is one fact."""
    pointwise = {rule.op for rule in all_rules() if rule.family == "pointwise" and not rule.domain}
    assert operators_where(lambda traits: traits.elementwise, "") == pointwise


ACTIVATIONS = (
    "Abs Cast Celu Ceil Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log "
    "LogSoftmax Mish Neg Reciprocal Relu Round Selu Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tanh "
    "ThresholdedRelu"
)


def test_shapes_that_are_passed_on() -> None:
    """Shape inference takes the most frequent ones, of the same type too; readers of undeclared inputs all of them.

    Before, these were the activations alone: no norm, no cumulative sum, no test for infinities.
    """
    assert scan._SAME_SHAPE < rank_of_inputs._ALIKE
    assert set(ACTIVATIONS.split()) < rank_of_inputs._ALIKE


NAMES = {
    "scale": {"scale"},
    "bias": {"b", "c", "bias"},
    "weight": {"w", "b", "weight"},
    "zero_point": {"w_zero_point", "b_zero_point"},
    "indices": {"indices"},
    "table": {"data"},
}


@pytest.mark.parametrize("op", [op for domain, op in TRAITS if not domain and defs.has(op)])
def test_slots_are_those_of_the_standard(op: str) -> None:
    traits, names = TRAITS["", op], [given.name.lower() for given in defs.get_schema(op).inputs]
    slots = {"weight": traits.weight, "bias": traits.bias}
    if traits.norm:
        slots = {"scale": traits.norm.scale, "bias": traits.norm.bias}
    for indices, table in traits.tables:
        slots = {"indices": indices, "table": table}
    for factor, zero_point in traits.zero_points:
        slots |= {"weight": factor, "zero_point": zero_point}
    for role, slot in slots.items():
        assert slot is None or names[slot] in NAMES[role]
    if (traits.norm and traits.norm.bias is None) or (traits.weight is not None and traits.bias is None):
        assert not {"bias", "c"} & set(names)


@pytest.mark.parametrize("op", ["Relu", "HardSwish"])
def test_flat_ranges_are_flat(op: str) -> None:
    net = Net(24)
    net.output(net.add(op, net.input([4])), [4])
    low = TRAITS["", op].flat_below
    made = run(net.proto(), feeds={"x": np.array([low - 7, low - 1, low, low + 1], np.float32)})[net.outputs[0].name]
    assert made[0] == made[1] == made[2] != made[3]


WITH = {
    "AveragePool": {"kernel_shape": [2, 2]},
    "MaxPool": {"kernel_shape": [2, 2]},
    "Cast": {"to": TensorProto.DOUBLE},
}


def takes_floats_alone(op: str) -> bool:
    """Whether a node of one input of floats, with the attributes in `WITH`, is one that ONNX Runtime runs."""
    schema = defs.get_schema(op) if defs.has(op) else None
    return (
        schema is not None
        and schema.min_input == 1
        and "tensor(float)" in schema.inputs[0].types
        and (op in WITH or not any(a.required for a in schema.attributes.values()))
        and op not in ("DynamicQuantizeLinear", "Swish")
    )


CLAIMED = (
    operators_where(lambda t: t.homogeneous or t.linear or t.elementwise or t.same_shape, "") - straight_line._RANDOM
)


@pytest.mark.parametrize("op", sorted(filter(takes_floats_alone, CLAIMED)))
def test_traits_of_activations_hold_in_a_run(op: str) -> None:
    net = Net(22)
    net.output(net.add(op, net.input([2, 3, 4, 4]), **WITH.get(op, {})))
    rng, traits = np.random.default_rng(0), TRAITS["", op]
    x, y = rng.uniform(0.1, 0.9, (2, 2, 3, 4, 4)).astype(np.float32)

    def f(value: np.ndarray) -> np.ndarray:
        return run(net.proto(), feeds={"x": value.astype(np.float32)})[net.outputs[0].name]

    made = f(x)
    if traits.same_shape:
        assert made.shape == x.shape
    if traits.homogeneous:
        np.testing.assert_allclose(f(3 * x), 3 * made, rtol=1e-5)
    if traits.linear:
        np.testing.assert_allclose(f((x + y) / 2), (made + f(y)) / 2, rtol=1e-5)
    if traits.elementwise:
        one = x.copy()
        one[1, 2, 3, 0] = 0.5
        changed = ~np.isclose(f(one), made, rtol=0, atol=0, equal_nan=True)
        changed[1, 2, 3, 0] = False
        assert not changed.any()


def reverse(net: Net, x: str) -> str:
    lengths = net.ints(3, 3, 3)
    return net.add("ReverseSequence", x, lengths, batch_axis=0, time_axis=1)


def compress(net: Net, x: str) -> str:
    return net.add("Compress", x, net.const(np.array([True, False, True])), axis=1)


def tile(net: Net, x: str) -> str:
    return net.add("Tile", x, net.ints(1, 2))


@pytest.mark.parametrize("way", [reverse, compress])
def test_moved_zeros_are_zeros(way) -> None:
    net = Net(17)
    zeros = way(net, net.const(np.zeros((3, 3), np.float32)))
    net.output(net.add("Add", net.make((3, net.probe(zeros).shape[1]), 0), zeros), None)
    assert api.trace(net.proto()).tracing.is_zero(zeros)


@pytest.mark.parametrize(
    ("op", "attrs", "lists"),
    [("BatchNormalization", {}, 4), ("InstanceNormalization", {}, 2), ("LRN", {"size": 3}, 0), ("PRelu", {}, 1)],
)
def test_an_input_without_shape_has_that_of_a_norm_behind_it(op: str, attrs: dict[str, int], lists: int) -> None:
    net = Net(17)
    channels = [net.const(np.ones(3, np.float32)) for _ in range(lists)]
    net.add("Conv", net.add(op, net.input([1, 3, 5, 5]), *channels, **attrs), net.weight(4, 3, 3, 3))
    assert rank_of_inputs.shape_by_consumers(net.proto().graph, "x") == (None, 3, None, None)


@pytest.mark.parametrize("way", [tile, reverse, compress])
def test_moved_numbers_are_proven_without_their_rounding(way) -> None:
    net = Net(17)
    scale = net.const(np.float32(0.1)), net.const(np.uint8(3))
    x = net.add("QuantizeLinear", net.input([3, 3]), *scale)
    net.output(net.add("DequantizeLinear", way(net, x), *scale), None)
    model = load(net.proto())
    moved = [name for node in model.proto.graph.node[:-1] for name in node.output]
    dtypes = dict.fromkeys(moved, TensorProto.UINT8) | dict.fromkeys((net.outputs[0].name, "x"), TensorProto.FLOAT)
    assert quantized.has_roundings(model, dtypes)
