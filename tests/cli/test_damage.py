"""Damaged files: none breaks the command line; what was found and mended stays mended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.errors import ModelError
from onnxprune.model import inline, load, validate
from onnxprune.model.shapes.symbols import dims_of
from onnxprune.runtime import Session
from onnxprune.tracing.labels import Constraints
from onnxprune.tracing.rules.ask import CONTRADICTION
from tests.cli.conftest import MODELS, Run, run
from tests.graphs import mutations
from tests.graphs.net import INT64, Net, reasons_for
from tests.measure import fuzz

__all__ = ["run"]


def test_some_damaged_files(tmp_path: Path) -> None:
    """One of every kind but the longest."""
    kinds = mutations.names()
    numbers = [n for n in range(len(kinds)) if kinds[n % len(kinds)] != "deep chains"]
    tallies = fuzz.fuzz(numbers, tmp_path)
    assert fuzz.summary(tallies) == []
    assert sum(t.files for t in tallies.values()) == len(numbers)


@pytest.mark.long
def test_many_damaged_files(tmp_path: Path) -> None:
    tallies = fuzz.fuzz(range(2000), tmp_path)
    assert [o for o in fuzz.summary(tallies) if fuzz.NATIVE not in o] == []


def test_the_worker_notices(tmp_path: Path) -> None:
    """A process that dies, one that takes too long, and one that runs out of memory are told apart from answers."""
    worker = fuzz.Worker(tmp_path)
    (tmp_path / "fuzz.onnx").write_bytes((MODELS / "mlp.onnx").read_bytes())
    assert worker.ask(tmp_path / "fuzz.onnx")["outcome"] == "pruned"
    assert worker.process is not None
    worker.process.kill()
    assert worker.ask(tmp_path / "fuzz.onnx")["outcome"] == "died"
    assert worker.ask(tmp_path / "fuzz.onnx")["outcome"] == "pruned"
    worker.close()


# --- models that were built to harm -----------------------------------------------------------------------


def small(net: Net, x: str) -> onnx.ModelProto:
    net.output(net.add("MatMul", x, net.weight(6, 4)), [2, 4])
    return net.proto()


def layer(net: Net, x: str = "") -> str:
    return net.add("Relu", net.add("MatMul", x or net.input([2, 3]), net.weight(3, 6, name="w")))


def contradiction() -> onnx.ModelProto:
    net = Net()
    made = net.add("BatchNormalization", layer(net), *(net.weight(5) for _ in range(4)))
    return small(net, made)


def huge_input() -> onnx.ModelProto:
    net = Net()
    x = net.input([1 << 40, 3])
    net.output(net.add("MatMul", layer(net, x), net.weight(6, 4)), [1 << 40, 4])
    return net.proto()


def huge_fill(size: int) -> onnx.ModelProto:
    net = Net()
    filled = net.add("ConstantOfShape", net.ints(size), value=helper.make_tensor("v", INT64, [1], [1]))
    most = net.add("ReduceMax", net.cast(filled, TensorProto.FLOAT), keepdims=0)
    return small(net, net.add("Add", layer(net), most))


def empty_constant() -> onnx.ModelProto:
    net = Net()
    net.nodes.append(helper.make_node("Constant", [], ["nothing"]))
    return small(net, layer(net))


def untyped_input() -> onnx.ModelProto:
    net = Net()
    proto = small(net, layer(net))
    proto.graph.input.append(helper.make_tensor_value_info("spare", 0, [2]))
    return proto


@pytest.mark.parametrize(
    ("build", "code", "message"),
    [
        (contradiction, 1, "nothing can be pruned"),
        (huge_input, 1, "is too large to be run"),
        (lambda: huge_fill(1 << 45), 1, "is too large to be run"),
        (lambda: huge_fill(1 << 28), 1, "is too large to be run"),
        (empty_constant, 1, "not proven"),
        (untyped_input, 3, "type"),
    ],
    ids=["contradiction", "input", "terabytes", "gigabytes", "constant", "type"],
)
def test_a_harmful_model(run: Run, tmp_path: Path, build: Callable[[], onnx.ModelProto], code: int, message: str):
    onnx.save(build(), tmp_path / "m.onnx")
    ran = run("prune", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx")
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert not (tmp_path / "o.onnx").exists()


def test_a_contradiction_is_a_barrier() -> None:
    groups = api.trace(contradiction())
    assert any(reason.startswith(CONTRADICTION) for reason in reasons_for(groups, "w", 1))


def test_ties_that_do_not_fit() -> None:
    ledger = Constraints()
    with pytest.raises(ValueError, match="broadcast"):
        ledger.tie(ledger.fresh("a", 0, 3), ledger.fresh("b", 0, 4))
    with pytest.raises(ValueError, match="too long to follow"):
        ledger.fresh("c", 0, 1 << 40)


def test_a_negative_size_is_an_unknown_one() -> None:
    net = Net()
    proto = small(net, layer(net))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert dims_of(proto.graph.input[0]) == ["x[0]", 3]
    verdict = api.prune(proto).report.verdict
    assert verdict is not None and verdict.ok


@pytest.mark.parametrize("count", [0, 1, 17, 19])
def test_typed_data_of_another_size(count: int) -> None:
    net = Net()
    proto = small(net, layer(net))
    weight = next(t for t in proto.graph.initializer if t.name == "w")
    weight.ClearField("raw_data")
    weight.float_data.extend([1.0] * count)
    with pytest.raises(ModelError, match="needs 18") as caught:
        api.trace(proto)
    assert caught.value.hint


@pytest.mark.parametrize(
    "kind", ["INT4", "UINT4", "FLOAT16", "BOOL", "COMPLEX64", "INT64", "UINT64", "DOUBLE", "STRING"]
)
def test_typed_data_of_the_right_size(kind: str) -> None:
    values = ["a"] * 3 if kind == "STRING" else [1] * 3
    tensor = helper.make_tensor("t", getattr(TensorProto, kind), [3], values)
    validate.check_stored(tensor)
    tensor.dims[0] = 5
    with pytest.raises(ModelError, match="needs"):
        validate.check_stored(tensor)


@pytest.mark.parametrize(("dims", "index"), [([3, 6], 18), ([3, 6], -1), ([3, -6], 0), ([1 << 20, 1 << 20], 0)])
def test_sparse_weights_out_of_bounds(dims: list[int], index: int) -> None:
    net = Net()
    proto = small(net, layer(net))
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "w"))
    sparse = proto.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([index], np.int64), "i"))
    with pytest.raises(ModelError, match="sparse initializer 'w'"):
        api.trace(proto)


def test_a_weight_that_is_declared_otherwise() -> None:
    net = Net()
    proto = small(net, layer(net))
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    with pytest.raises(ModelError, match="'w' has 2 axes, but not as a graph input"):
        api.trace(proto)


def calling(*calls: list[str]) -> onnx.ModelProto:
    """A model with functions f0, f1, ... that call these."""
    net = Net()
    proto = small(net, net.add("f0", layer(net), domain="local"))
    for index, inner in enumerate(calls):
        steps = [helper.make_node(op, ["x"], [f"t{i}"], domain="local") for i, op in enumerate(inner)]
        steps.append(helper.make_node("Identity", ["t0" if inner else "x"], ["y"]))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        proto.functions.append(helper.make_function("local", f"f{index}", ["x"], ["y"], steps, opsets))
    return proto


def test_functions_are_counted_before_they_are_written_out() -> None:
    doubling = [[f"f{i + 1}"] * 2 for i in range(40)] + [[]]
    with pytest.raises(ModelError, match="call each other"):
        api.trace(calling(*doubling))
    assert math.isinf(inline._expanded(calling(["f1"], ["f0"])))
    with pytest.raises(ModelError):
        api.trace(calling(["f0"]))
    assert inline._expanded(calling(["f1", "f1"], [])) == 3 + 3 + 2
    api.trace(calling(["f1", "f1"], []))


def test_a_long_expression_for_a_dim() -> None:
    net = Net()
    proto = small(net, layer(net))
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "1" + "+n" * 1_500
    api.trace(proto)


def test_weights_that_are_not_finite_are_named(run: Run, tmp_path: Path) -> None:
    for bad in (np.nan, np.inf, 3e38):
        net = Net()
        proto = small(net, layer(net))
        weight = next(t for t in proto.graph.initializer if t.name == "w")
        value = numpy_helper.to_array(weight).copy()
        value[1, 2] = bad
        weight.CopyFrom(numpy_helper.from_array(value, "w"))
        onnx.save(proto, tmp_path / "m.onnx")
        ran = run("prune", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx")
        assert ran.code == 2 and "'w' holds NaN or infinity" in ran.err and "--keep" in ran.err


def test_long_chains_on_weights(tmp_path: Path) -> None:
    """Nothing that looks for a weight behind what hands it on may call itself, or start anew at every node."""
    net = Net()
    weight, zeros = net.weight(8, 6, name="w"), net.const(np.zeros((1, 1, 8), np.float32))
    for _ in range(3000):
        weight, zeros = net.add("Identity", weight), net.add("Identity", zeros)
    x = net.input([4, 1, 5])
    gates = [net.weight(1, 24, n) for n in (5, 8)]
    h, _ = net.add("GRU", x, *gates, "", "", zeros, outputs=2, hidden_size=8)
    net.output(net.add("MatMul", net.add("MatMul", h, weight), net.weight(6, 3)))
    found = api.run(load(net.proto()), Options(ratio=0.5))
    assert found.verdict is not None and found.verdict.ok
    assert found.after.params < found.before.params


def test_long_chains_load_in_time() -> None:
    """ONNX Runtime's clean-up of a graph takes time that grows with the square of such a chain."""
    net = Net()
    x = layer(net)
    for _ in range(12_000):
        x = net.add("Add", x, x)
    with Session(api.load(small(net, x))):
        pass


@pytest.mark.parametrize("computed", [False, True])
def test_sizes_without_a_name_cost_no_time(computed: bool) -> None:
    """The runtime compares each of them with all others, which took 10 CPU seconds for 5,000 nodes."""
    tensor, names = helper.make_tensor_value_info, [f"x{i}" for i in range(5000)]
    inputs = [tensor("x", TensorProto.FLOAT, ["a", "b"] if computed else [None, None])]
    nodes = [helper.make_node("Add", [a, a], [b]) for a, b in zip(["y", *names], names, strict=False)]
    if computed:
        inputs.append(tensor("sizes", TensorProto.INT64, [2]))
    nodes.insert(0, helper.make_node("Reshape" if computed else "Identity", [i.name for i in inputs], ["y"]))
    graph = helper.make_graph(nodes, "chain", inputs, [tensor(names[-1], TensorProto.FLOAT, [None, None])])
    model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    start = time.process_time()
    Session(model, threads=1).close()
    assert time.process_time() - start < 7
