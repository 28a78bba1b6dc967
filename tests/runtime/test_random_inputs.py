"""Random inputs on which a model runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.model import load
from onnxprune.model.flatten import flattened
from onnxprune.model.shapes.infer import infer
from onnxprune.runtime.random_inputs import STEPS, count_choices, random_feeds
from tests.graphs.net import Net


def feeds_of(proto: onnx.ModelProto, choice: int = 0, seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    model = flattened(load(proto))
    return random_feeds(model, infer(model, sizes), np.random.default_rng(seed), choice=choice)


def test_indices_stay_inside_of_the_table_that_they_reach() -> None:
    net = Net()
    ids = net.input(["n", 50], "ids", TensorProto.INT64)
    reached = net.add("Clip", net.add("Unsqueeze", ids, net.ints(0)), net.const(0), net.const(8))
    net.output(net.add("Gather", net.weight(9, 4), reached), [1, "n", 50, 4])
    net.output(net.add("Gather", net.weight(30, 4), ids), ["n", 50, 4])
    found = feeds_of(net.proto(), n=20)["ids"]
    assert found.shape == (20, 50) and found.dtype == np.int64
    assert set(np.unique(found)) == set(range(9)), "the smallest of its tables"


def test_kinds_of_inputs() -> None:
    net = Net()
    kinds = {"f": TensorProto.FLOAT16, "b": TensorProto.BOOL, "u": TensorProto.UINT8, "i": TensorProto.INT32}
    for name, kind in kinds.items():
        net.output(net.add("Identity", net.input([400], name, kind)), [400], kind)
    net.output(net.add("Identity", net.input([2], "s", TensorProto.STRING)), [2], TensorProto.STRING)
    found = feeds_of(net.proto())
    assert found["f"].dtype == np.float16 and 0.8 < found["f"].astype(float).std() < 1.2
    assert found["b"].all() and (found["i"] == 1).all() and found["s"].tolist() == ["a", "a"]
    assert found["u"].min() < 20 and found["u"].max() > 235, "bytes are of any value"


def test_weights_among_the_inputs_are_not_fed() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input([2, 4]), net.weight(4, 3, name="w")))
    proto = net.proto()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    assert set(feeds_of(proto)) == {"x"}


def test_a_number_that_is_compared_has_values_on_both_sides() -> None:
    net = Net()
    step = net.input([1], "step", TensorProto.INT64)
    large = net.add("Cast", net.add("Greater", step, net.const(np.array([7]))), to=TensorProto.FLOAT)
    net.output(net.add("Mul", net.input([1]), large))
    proto = net.proto()
    model = flattened(load(proto))
    choices = count_choices(model, infer(model))
    assert choices == 4
    assert [int(feeds_of(proto, choice)["step"][0]) for choice in range(choices)] == [1, 7, 8, 6]


def test_nothing_compared_is_one_choice() -> None:
    net = Net()
    net.output(net.add("Relu", net.input([2])))
    model = flattened(load(net.proto()))
    assert count_choices(model, infer(model)) == 1


def test_a_loop_goes_around_a_few_times() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Add", ["h", "h"], ["h_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_out", TensorProto.FLOAT, [2]),
        ],
    )
    net = Net()
    count = net.input([], "count", TensorProto.INT64)
    net.output(net.add("Loop", count, net.const(True), net.input([2], "h0"), body=body), [2])
    assert feeds_of(net.proto())["count"] == STEPS


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_the_same_numbers(seed: int) -> None:
    net = Net()
    net.output(net.add("Relu", net.input([20])))
    one, again, other = (feeds_of(net.proto(), seed=s)["x"] for s in (seed, seed, seed + 1))
    assert (one == again).all() and (one != other).any()
