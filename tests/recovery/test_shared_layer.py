"""Weights that several nodes read are fitted to the rows of all of them, and stay shared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.model import Model, load
from tests.recovery.test_closed_form import outputs

RNG = np.random.default_rng(0)
C, M, OUT = 3, 4, 5


def network(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[int | str],
    *,
    ends: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    """A model with the input x."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", TensorProto.FLOAT, shape)],
        [tensor(name, TensorProto.FLOAT, [f"{name}{i}" for i in range(len(shape))]) for name in ends],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def levels(bias: str) -> onnx.ModelProto:
    """A head on three levels of a picture; of its hidden channels 4..7 are copies (times two) of 0..3."""
    first, second = RNG.standard_normal((M, C, 3, 3)), RNG.standard_normal((OUT, 2 * M, 3, 3))
    weights = {"w1": np.concatenate([first, 2 * first]), "w2": second}
    nodes, entry = [], "x"
    for level in "abc":
        nodes.append(helper.make_node("Conv", [entry, "w1"], [f"h{level}"], name=f"first_{level}"))
        nodes.append(helper.make_node("Relu", [f"h{level}"], [f"r{level}"]))
        added = {"shared": ["b"], "own": [f"b{level}"], "none": []}[bias]
        weights |= {name: RNG.standard_normal(OUT) for name in added}
        nodes.append(helper.make_node("Conv", [f"r{level}", "w2", *added], [f"y{level}"], name=f"second_{level}"))
        nodes.append(helper.make_node("MaxPool", [entry], [f"x{level}"], kernel_shape=[2, 2], strides=[2, 2]))
        entry = f"x{level}"
    return network(nodes[:-1], weights, ["n", C, 32, 32], ends=("ya", "yb", "yc"))


def readers(model: Model, name: str) -> list[str]:
    return [node.name or node.op_type for node in model.proto.graph.node if name in node.input]


@pytest.mark.parametrize("bias", ["shared", "own", "none"])
def test_heads_of_several_levels_are_fitted_together(bias: str):
    model, data = levels(bias), RNG.standard_normal((64, C, 32, 32)).astype(np.float32)
    plain = onnxprune.prune(model, 0.5)
    mended = onnxprune.prune(model, 0.5, data=[{"x": part} for part in np.split(data, 8)])
    fresh = {"x": RNG.standard_normal((16, C, 32, 32)).astype(np.float32)}
    for end in range(3):
        turned = [onnx.ModelProto.FromString(m.SerializeToString()) for m in (model, plain.model, mended.model)]
        for proto in turned:
            kept = proto.graph.output[end]
            del proto.graph.output[:]
            proto.graph.output.append(kept)
        wanted, cut, fitted = (outputs(proto, fresh) for proto in turned)
        errors = [float(np.square(found - wanted).mean() / wanted.var()) for found in (cut, fitted)]
        assert errors[0] > 0.05 and errors[1] < 0.01 * errors[0]
    (fit,) = mended.report.recovery.fits
    assert fit.kept and fit.node == "second_c"
    small = load(mended.model)
    assert readers(small, "w2") == ["second_a", "second_b", "second_c"] and small.array("w2").shape == (OUT, M, 3, 3)


def test_a_layer_that_is_used_again_on_its_own_outputs_does_better():
    first = RNG.standard_normal((6, M)) / 3
    weights = {"w1": np.concatenate([first, 2 * first], axis=1), "w2": RNG.standard_normal((2 * M, 6)) / 6}
    weights |= {"b": RNG.standard_normal(6) / 3}
    nodes, stream = [], "x"
    for number in range(3):
        nodes.append(helper.make_node("MatMul", [stream, "w1"], [f"h{number}"]))
        nodes.append(helper.make_node("Relu", [f"h{number}"], [f"r{number}"]))
        nodes.append(helper.make_node("MatMul", [f"r{number}", "w2"], [f"m{number}"]))
        nodes.append(helper.make_node("Add", [f"m{number}", "b"], [f"a{number}"]))
        nodes.append(helper.make_node("Add", [stream, f"a{number}"], ["y" if number == 2 else f"s{number}"]))
        stream = f"s{number}"
    model = network(nodes, weights, ["n", 6])
    data = RNG.standard_normal((1024, 6)).astype(np.float32)
    mended = onnxprune.prune(model, 0.5, data=[{"x": part} for part in np.split(data, 8)])
    fresh = {"x": RNG.standard_normal((256, 6)).astype(np.float32)}
    wanted = outputs(model, fresh)
    cut, fitted = (outputs(m, fresh) for m in (onnxprune.prune(model, 0.5).model, mended.model))
    errors = [float(np.square(found - wanted).mean() / wanted.var()) for found in (cut, fitted)]
    # The second and third use see what the first, unfitted, gave.
    assert errors[0] > 0.02 and errors[1] < 0.05 * errors[0]
    assert len(mended.report.recovery.fits) == 1 and mended.report.recovery.kept


def block(stream: str, number: int, own: str) -> list[onnx.NodeProto]:
    """A hidden layer whose first weight is shared and whose second is its own, and what it adds to the stream."""
    return [
        helper.make_node("MatMul", [stream, own], [f"f{number}"], name=f"first_{number}"),
        helper.make_node("Relu", [f"f{number}"], [f"g{number}"]),
        helper.make_node("MatMul", [f"g{number}", "shared"], [f"m{number}"], name=f"shared_{number}"),
        helper.make_node("Add", [stream, f"m{number}"], [f"s{number}"]),
    ]


@pytest.mark.parametrize("repeated", [True, False])
def test_a_place_is_found_behind_what_is_read_and_before_what_reads(repeated: bool):
    """Two blocks with layers of their own behind them; where the second reads the first, there is no such place."""
    weights = {name: RNG.standard_normal((6, 8)) for name in ("a", "b")} | {"shared": RNG.standard_normal((8, 6))}
    weights |= {f"{name}{i}": RNG.standard_normal((6, 6)) for name in ("u", "v") for i in range(2)}
    nodes = []
    for number, own in enumerate("ab"):
        nodes += block("s0" if number and repeated else "x", number, own)
        nodes.append(helper.make_node("MatMul", [f"s{number}", f"u{number}"], [f"p{number}"], name=f"read_{number}"))
        nodes.append(helper.make_node("Tanh", [f"p{number}"], [f"q{number}"]))
        nodes.append(helper.make_node("MatMul", [f"q{number}", f"v{number}"], [f"y{number}"], name=f"own_{number}"))
    nodes.append(helper.make_node("Add", ["y0", "y1"], ["y"]))
    model = network(nodes, weights, ["n", 6])
    runs = [{"x": part} for part in np.split(RNG.standard_normal((1024, 6)).astype(np.float32), 8)]
    report = onnxprune.prune(model, 0.5, data=runs).report.recovery
    names = [fit.node for fit in report.fits]
    assert report.after.error < report.before.error
    if repeated:  # the second block's first layer reads what the shared one gives, and the shared one reads that
        assert "shared_1" not in names and "first_1" in names
    else:  # the layers behind the first block wait for the shared one
        assert names == ["shared_1", "read_0", "own_0", "read_1", "own_1"]


def test_a_block_that_is_repeated_with_other_layers_in_between_stays():
    weights = {"a": RNG.standard_normal((6, 8)), "shared": RNG.standard_normal((8, 6)), "head": np.eye(6)}
    weights |= {"u": RNG.standard_normal((6, 8)), "v": RNG.standard_normal((8, 6))}
    nodes = block("x", 0, "a")
    nodes += [helper.make_node("MatMul", ["s0", "u"], ["p"]), helper.make_node("Relu", ["p"], ["q"])]
    nodes += [helper.make_node("MatMul", ["q", "v"], ["t"], name="between"), *block("t", 1, "a")]
    model = network([*nodes, helper.make_node("MatMul", ["s1", "head"], ["y"])], weights, ["n", 6])
    runs = [{"x": part} for part in np.split(RNG.standard_normal((1024, 6)).astype(np.float32), 8)]
    result = onnxprune.prune(model, 0.5, data=runs)
    assert "between" in {fit.node for fit in result.report.recovery.fits}
    assert not {"shared_0", "shared_1"} & {fit.node for fit in result.report.recovery.fits}


@pytest.mark.parametrize("other", ["transposed", "gathered"])
def test_a_weight_that_is_something_else_to_another_node_stays(other: str):
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes.append(helper.make_node("Gemm", ["r", "w2"], ["one"]))
    weights = {name: RNG.standard_normal((8, 8)) for name in ("w1", "w2", "w3", "w4")}
    if other == "transposed":
        nodes.append(helper.make_node("Gemm", ["r", "w2"], ["two"], transB=1))
    else:
        weights["zero"] = np.zeros(())
        nodes.append(helper.make_node("Cast", ["zero"], ["first"], to=TensorProto.INT64))
        nodes.append(helper.make_node("Gather", ["w2", "first"], ["column"], axis=1))
        nodes.append(helper.make_node("Mul", ["r", "column"], ["two"]))
    nodes += [helper.make_node("MatMul", ["one", "w3"], ["left"]), helper.make_node("MatMul", ["two", "w4"], ["right"])]
    model = network([*nodes, helper.make_node("Add", ["left", "right"], ["y"])], weights, ["n", 8])
    runs = [{"x": part} for part in np.split(RNG.standard_normal((256, 8)).astype(np.float32), 8)]
    small, cut = (load(onnxprune.prune(model, 0.5, data=runs, recovery=how).model) for how in ("least-squares", "none"))
    assert len(readers(small, "w2")) == 2 and small.array("w2").size < 64
    assert np.array_equal(small.array("w2"), cut.array("w2"))
