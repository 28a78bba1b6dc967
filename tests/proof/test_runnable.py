"""Inputs on which the original runs are found: sizes that fit, values that the graph asks for, the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune import Options, api
from onnxprune.model import load
from onnxprune.proof.runnable import inputs_that_run
from onnxprune.tracing import trace

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.random.default_rng(3).standard_normal(shape).astype(np.float32) / 4, name)


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def of(nodes: list[NodeProto], inputs: Mapping[str, tuple[int, list[int | str]]], *weights: TensorProto) -> ModelProto:
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    out = [helper.make_tensor_value_info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", given, out, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def head(source: str) -> list[NodeProto]:
    return [
        helper.make_node("MatMul", [source, "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("MatMul", ["i", "w2"], ["y"]),
    ]


HEAD = (weight("w1", 8, 16), weight("w2", 16, 4))


def state_of_fixed_batch() -> ModelProto:
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "h0", "c0"], ["s"], hidden_size=8),
        helper.make_node("Squeeze", ["s", "one"], ["t"]),
        *head("t"),
    ]
    inputs = {"x": (FLOAT, ["steps", "batch", 6]), "h0": (FLOAT, [1, 3, 8]), "c0": (FLOAT, [1, 3, 8])}
    return of(nodes, inputs, weight("w", 1, 32, 6), weight("r", 1, 32, 8), ints("one", 1), *HEAD)


def batches_of_other_names() -> ModelProto:
    nodes = [
        helper.make_node("GRU", ["x", "w", "r", "", "", "h0"], ["s"], hidden_size=8),
        helper.make_node("Squeeze", ["s", "one"], ["t"]),
        *head("t"),
    ]
    inputs = {"x": (FLOAT, ["T", "N", 6]), "h0": (FLOAT, [1, "M", 8])}
    return of(nodes, inputs, weight("w", 1, 24, 6), weight("r", 1, 24, 8), ints("one", 1), *HEAD)


def sums_of_other_names() -> ModelProto:
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), *head("s")]
    return of(nodes, {"a": (FLOAT, ["N", "T", 8]), "b": (FLOAT, ["M", "U", 8])}, *HEAD)


def reshaped_to_rows() -> ModelProto:
    nodes = [helper.make_node("Reshape", ["x", "rows"], ["r"]), *head("r")]
    return of(nodes, {"x": (FLOAT, ["n", "m"])}, ints("rows", -1, 25, 8), *HEAD)


def guarded(wanted: list[NodeProto], name: str) -> ModelProto:
    """A model that runs only if its input `length` is the tensor `name`, which the nodes `wanted` may make."""
    nodes = [
        *wanted,
        helper.make_node("Equal", ["length", name], ["is_so"]),
        helper.make_node("Not", ["is_so"], ["is_wrong"]),
        helper.make_node("Cast", ["is_wrong"], ["row"], to=INT64),
        helper.make_node("Gather", ["factors", "row"], ["factor"]),  # there is row 0 only
        helper.make_node("Mul", ["x", "factor"], ["m"]),
        *head("m"),
    ]
    inputs = {"x": (FLOAT, ["n", 8]), "length": (INT64, [1])}
    return of(nodes, inputs, ints("hundred", 100), ints("zero", 0), weight("factors", 1), *HEAD)


def number_that_is_checked() -> ModelProto:
    return guarded([], "hundred")


def length_that_is_checked() -> ModelProto:
    shape = helper.make_node("Shape", ["x"], ["sizes"])
    return guarded([shape, helper.make_node("Gather", ["sizes", "zero"], ["rows"])], "rows")


def wide_kernel() -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], strides=[160]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "k2"], ["y"]),
    ]
    return of(nodes, {"x": (FLOAT, ["n", 1, "t"])}, weight("k1", 16, 1, 1200), weight("k2", 4, 16, 1))


@pytest.mark.parametrize(
    "make",
    [
        state_of_fixed_batch,
        batches_of_other_names,
        sums_of_other_names,
        reshaped_to_rows,
        number_that_is_checked,
        length_that_is_checked,
        wide_kernel,
    ],
)
def test_the_proof_runs(make: Callable[[], ModelProto]) -> None:
    result = api.prune(make(), 0.5, sizes={})
    verdict = result.report.verdict
    assert verdict is not None and verdict.ok and verdict.runnable, verdict
    assert verdict.strength is None or not verdict.blind


def only_odd_products() -> ModelProto:
    nodes = [helper.make_node("Reshape", ["x", "rows"], ["r"]), *head("r")]
    return of(nodes, {"x": (FLOAT, ["n", "m"])}, ints("rows", 7, 13, 8), *HEAD)


def test_sizes_that_nobody_guesses_are_asked_for() -> None:
    verdict = api.run(load(only_odd_products()), Options(ratio=0.5)).verdict
    assert verdict is not None and not verdict.ok and not verdict.runnable
    assert "does not run" in verdict.problem
    assert "--sizes n=N --sizes m=N (axis 0 of 'x', axis 1 of 'x')" in verdict.problem and "--data" in verdict.problem
    given = api.prune(only_odd_products(), 0.5, sizes={"n": 7, "m": 104}).report.verdict
    assert given is not None and given.ok


def test_data_serves_the_proof() -> None:
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((7, 104)).astype(np.float32)} for _ in range(3)]
    result = api.prune(only_odd_products(), 0.5, data=data, recovery="none")
    verdict = result.report.verdict
    assert verdict is not None and verdict.ok
    assert verdict.feeds is not None and verdict.feeds["x"].shape == (7, 104)


def test_given_sizes_are_kept() -> None:
    groups = trace(load(sums_of_other_names()), sizes={"N": 5})
    found = inputs_that_run(groups, {"N": 5})
    assert found is not None and found.sizes["N"] == 5 and found.feeds["a"].shape[0] == 5
