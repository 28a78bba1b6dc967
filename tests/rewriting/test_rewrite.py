"""What was not changed comes out as it went in; what was changed is as small as it can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.layers import Parameters
from onnxprune.model import Model, load, to_proto
from onnxprune.rewriting import zeroed
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups, trace
from tests.graphs.net import Net, array_of, ops_of, prune, run, shapes_of

MODELS = Path(__file__).parents[2] / "models"


def annotated(ir_version: int = 10, opset: int = 21) -> onnx.ModelProto:
    """A graph with something in every corner, of which half is cut."""
    net = Net(opset, ir_version=ir_version)
    x = net.input(["batch", 3, 6, 6], "image")
    y = net.add("Conv", x, net.weight(8, 3, 3, 3, name="stem"), net.weight(8, name="bias"), pads=[1, 1, 1, 1])
    y = net.add("Relu", y, name="hidden")
    net.output(net.add("Conv", y, net.weight(5, 8, 1, 1, name="head"), name="map"), ["batch", 5, 6, 6])
    pooled = net.add("GlobalAveragePool", net.add("Neg", x, name="beside"), name="pooled")
    net.output(pooled, ["batch", 3, 1, 1])
    proto = net.proto()
    graph = proto.graph
    proto.producer_name, proto.producer_version, proto.domain = "maker", "1.2", "org.example"
    proto.model_version, proto.doc_string = 7, "model text"
    proto.opset_import.append(helper.make_opsetid("org.other", 3))
    graph.doc_string = "graph text"
    graph.value_info.append(helper.make_tensor_value_info("hidden", 1, ["batch", 8, 6, 6]))
    graph.value_info.append(helper.make_tensor_value_info("beside", 1, ["batch", 3, 6, 6]))
    graph.value_info[0].doc_string = "seen"
    graph.node[0].doc_string = "the first layer"
    for tensor in graph.initializer:
        tensor.doc_string = f"text of {tensor.name}"
    note = graph.quantization_annotation.add(tensor_name="hidden")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="stem")
    if ir_version >= 10:
        for holder in (proto, graph, graph.node[0], graph.initializer[0], graph.value_info[0]):
            holder.metadata_props.add(key="who", value=type(holder).__name__)
    return proto


def without_data(message: Any) -> Any:
    """A tensor but for its values and sizes, an info but for its sizes."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in ("raw_data", "float_data", "dims"):
        if isinstance(copy, onnx.TensorProto):
            copy.ClearField(name)
    if isinstance(copy, onnx.ValueInfoProto):
        copy.type.tensor_type.shape.ClearField("dim")
    return copy


@pytest.fixture(scope="module")
def pair() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    proto = annotated()
    small = onnxprune.prune(proto, 0.5).model
    assert shapes_of(small)["stem"] == (4, 3, 3, 3)
    return proto, small


def test_every_field_of_the_model(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    before, after = pair
    for field in onnx.ModelProto.DESCRIPTOR.fields:
        if field.name != "graph":
            assert getattr(before, field.name) == getattr(after, field.name), field.name


def test_every_field_of_the_graph(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    before, after = (p.graph for p in pair)
    for field in onnx.GraphProto.DESCRIPTOR.fields:
        if field.name not in ("initializer", "value_info"):
            assert getattr(before, field.name) == getattr(after, field.name), field.name
    for name in ("initializer", "value_info"):
        one, other = getattr(before, name), getattr(after, name)
        assert [without_data(m) for m in one] == [without_data(m) for m in other]
    assert after.value_info[1] == before.value_info[1]


def test_sizes_in_value_info_follow(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    dims = pair[1].graph.value_info[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 4, 6, 6]


def test_the_input_is_not_touched() -> None:
    proto = annotated()
    before = proto.SerializeToString(deterministic=True)
    onnxprune.prune(proto, 0.5)
    assert proto.SerializeToString(deterministic=True) == before


def test_nothing_removed_is_the_same_model() -> None:
    proto = annotated()
    groups = trace(load(proto))
    assert rewrite(groups, np.zeros(groups.classes.count, bool)).proto == proto


@pytest.mark.parametrize("opset", [7, 8])
def test_ir_version_3(opset: int) -> None:
    """Every initializer is an input too, also those that the rewrite adds."""
    net = Net(opset, ir_version=3)
    x = net.input([2, 24, 4, 4])
    y = net.add("Conv", x, net.weight(12, 24, 1, 1, name="w"))
    y = net.add("Reshape", y, net.ints(2, 2, 6, 4, 4))
    y = net.add("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = net.add("Reshape", y, net.ints(2, 12, 4, 4))
    net.output(net.add("Conv", y, net.weight(5, 12, 1, 1, name="head")), [2, 5, 4, 4])
    proto = net.proto()
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    small = outcome.model.proto
    assert small.ir_version == 3
    names = [i.name for i in small.graph.input]
    assert names[0] == "x"
    assert sorted(names[1:]) == sorted(t.name for t in small.graph.initializer)
    sizes = shapes_of(small)
    for value in small.graph.input[1:]:
        assert tuple(d.dim_value for d in value.type.tensor_type.shape.dim) == sizes[value.name]
    onnx.checker.check_model(small, full_check=True)


def test_no_dead_weight_or_node_is_left() -> None:
    """What only removed positions needed goes with them, and what was dead before."""
    net = Net()
    x = net.make((2, 5, 8), 2)
    net.read(net.add("Relu", x), 2)
    net.add("MatMul", x, net.weight(8, 4, name="dead"))
    net.weight(4, 4, name="unused")
    small = prune(net.proto()).model.proto
    used = {name for node in small.graph.node for name in node.input}
    assert {t.name for t in small.graph.initializer} <= used
    needed = used | {o.name for o in small.graph.output}
    assert all(set(node.output) & needed for node in small.graph.node)
    assert not {"dead", "unused"} & set(shapes_of(small))


def test_an_initializer_that_is_an_output_stays() -> None:
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    net.const(np.arange(3, dtype=np.float32), "table")
    net.output("table", [3])
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert array_of(outcome.model, "table").tolist() == [0, 1, 2]


def test_a_weight_that_is_an_output_is_not_cut() -> None:
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    net.output("w_in", [3, 8])
    proto = net.proto()
    try:
        small = prune(proto).model
    except onnxprune.errors.GoalMissed:
        return
    assert shapes_of(small)["w_in"] == (3, 8)


def test_weights_that_a_subgraph_captures_stay() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    net.read(net.add("Relu", x), 2)
    flag = net.input([], "flag", dtype=onnx.TensorProto.BOOL)

    def branch(name: str, op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["w_in"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, [3, 8])])

    net.output(net.add("If", flag, then_branch=branch("a", "Neg"), else_branch=branch("b", "Abs")), [3, 8])
    proto = net.proto()
    try:
        outcome = prune(proto)
    except onnxprune.errors.GoalMissed:
        return
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert shapes_of(outcome.model)["w_in"] == (3, 8)


def test_functions_that_nobody_calls_stay_as_they_are() -> None:
    proto = annotated()
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("org.other", "Unused", ["a"], ["b"], body, opsets))
    assert onnxprune.prune(proto, 0.5).model.functions == proto.functions


def test_functions_that_are_called_can_be_pruned_through() -> None:
    proto = annotated()
    body = [helper.make_node("Relu", ["a"], ["c"]), helper.make_node("Neg", ["c"], ["b"])]
    opsets = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("org.other", "Twice", ["a"], ["b"], body, opsets))
    node = next(n for n in proto.graph.node if n.op_type == "Relu")
    node.op_type, node.domain = "Twice", "org.other"
    result = onnxprune.prune(proto, 0.5)
    assert result.report.verdict.ok, result.report.verdict.problem
    assert shapes_of(result.model)["stem"] == (4, 3, 3, 3)


@pytest.mark.parametrize("kind", ["raw", "typed", "constant", "sparse"])
def test_weights_however_they_are_stored(kind: str) -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    value = net.rng.standard_normal((8, 6)).astype(np.float32)
    if kind == "constant":
        middle = net.add("Constant", value=numpy_helper.from_array(value, "inner"), name="middle")
    else:
        middle = net.const(value, "middle")
    net.read(net.add("Relu", net.add("MatMul", x, middle)), 2)
    proto = net.proto()
    position = next((i for i, t in enumerate(proto.graph.initializer) if t.name == "middle"), 0)
    if kind == "typed":
        typed = helper.make_tensor("middle", 1, value.shape, value.ravel().tolist())
        proto.graph.initializer[position].CopyFrom(typed)
    elif kind == "sparse":
        value[np.abs(value) < 1] = 0
        places = np.flatnonzero(value)
        stored = numpy_helper.from_array(value.ravel()[places], "middle")
        proto.graph.sparse_initializer.append(
            helper.make_sparse_tensor(stored, numpy_helper.from_array(places, "places"), value.shape)
        )
        del proto.graph.initializer[position]
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    masks = outcome.plan.masks(proto)
    assert masks["middle"].shape == (8, 6)
    assert masks["middle"].sum() == 12
    assert run(outcome.model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float32"])
def test_types_of_weights(dtype: str) -> None:
    import ml_dtypes

    element = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    net = Net(21, dtype=element)
    x = net.input([2, 5, 3])
    x = net.add("MatMul", x, net.weight(3, 8, name="w_in"))
    x = net.add("Add", x, net.weight(8, name="bias"))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w_out")), [2, 5, 4])
    proto = net.proto()
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok or not outcome.verdict.runnable, outcome.verdict.problem
    kept = outcome.plan.masks(proto)["w_in"][0]
    small = array_of(outcome.model, "w_in")
    assert small.dtype == element
    np.testing.assert_array_equal(small.astype(np.float64), array_of(proto, "w_in").astype(np.float64)[:, kept])


def test_external_data_stays_external_and_lazy(tmp_path: Path) -> None:
    net = Net()
    x = net.input([2, 64])
    x = net.add("Relu", net.add("MatMul", x, net.weight(64, 64, name="w1")))
    net.output(net.add("MatMul", x, net.weight(64, 64, name="w2")), [2, 64])
    proto = net.proto()
    path = tmp_path / "model.onnx"
    wanted = prune(proto).model
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "out").mkdir()
    source = load(path)
    outcome = prune(source)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert set(outcome.model.values) == {"w1", "w2"}
    assert all(not t.raw_data for t in outcome.model.proto.graph.initializer)
    from onnxprune.model import save

    save(outcome.model, tmp_path / "out" / "small.onnx")
    back = onnx.load(tmp_path / "out" / "small.onnx")
    assert shapes_of(back) == {"w1": (64, 32), "w2": (32, 64)}
    np.testing.assert_array_equal(array_of(back, "w1"), array_of(wanted, "w1"))
    assert sum(f.stat().st_size for f in (tmp_path / "out").iterdir()) < sum(
        f.stat().st_size for f in tmp_path.iterdir() if f.is_file()
    )


def test_a_file_of_a_usual_size_is_smaller_even_where_nodes_are_added() -> None:
    net = Net()
    x = net.input([2, 5, 64])
    x = net.add("MatMul", x, net.weight(64, 128, name="w"))
    even = net.add("Slice", x, net.ints(0), net.ints(128), net.ints(2), net.ints(2))
    odd = net.add("Slice", x, net.ints(1), net.ints(128), net.ints(2), net.ints(2))
    net.output(net.add("MatMul", even, net.weight(64, 8)))
    net.output(net.add("MatMul", odd, net.weight(64, 8)))
    proto = net.proto()
    small = prune(proto, 0.3).model.proto
    assert ops_of(small) != ops_of(proto)
    assert small.ByteSize() < proto.ByteSize()


def test_new_names_avoid_those_in_the_graph() -> None:
    """Names that the rewrite would like to use are taken already, also inside of subgraphs."""
    from tests.tracing.test_graph_index import two_scales

    proto = two_scales(np.ones(8)).proto()
    for name in ("scale_pruned", "scale_pruned_1"):
        proto.graph.node.append(helper.make_node("Neg", [proto.graph.input[0].name], [name], name=name))
        proto.graph.output.append(helper.make_tensor_value_info(name, 1, [2, 5, 3]))
    outcome = prune(proto, ratios={"w_a": 0.25, "w_b": 0.75})
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    names = [o for n in outcome.model.proto.graph.node for o in n.output] + list(shapes_of(outcome.model))
    assert len(names) == len(set(names))


def test_pruning_twice() -> None:
    proto = annotated()
    once = onnxprune.prune(proto, 0.5).model
    twice = onnxprune.prune(once, 0.5)
    assert twice.report.verdict.ok
    assert shapes_of(twice.model)["stem"] == (2, 3, 3, 3)


def test_optional_outputs_that_are_left_out() -> None:
    """Optional outputs that are not asked for have empty names."""
    net = Net()
    x = net.make((2, 5, 8), 2)
    net.nodes.append(helper.make_node("LayerNormalization", [x, net.weight(8)], ["y", "", "deviation"]))
    net.read("y", 2)
    net.output("deviation")
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert shapes_of(outcome.model)["w_in"] == (3, 4)


@pytest.mark.parametrize("change", [rewrite, zeroed])
def test_replaced_weights_come_along(change: Callable[[Groups, np.ndarray], Model]) -> None:
    """Weights that do not lie in the proto, as after a repair, are those of the new model, cut or not."""
    parameters = Parameters(load(MODELS / "digits.onnx"))
    names = [t.name for t in parameters.proto.graph.initializer if parameters.is_own(t.name)]
    for name in names:
        parameters.store(name, parameters.value(name) + 1)
    changed = parameters.finished()
    groups = trace(changed)
    removed = np.zeros(groups.classes.count, bool)
    removed[groups.groups[0].classes[0]] = True
    found, wanted = change(groups, removed), change(trace(load(to_proto(changed))), removed)
    assert len(names) > 4 and found.initializers.keys() == wanted.initializers.keys()
    for name in wanted.initializers:
        np.testing.assert_array_equal(found.array(name), wanted.array(name), err_msg=name)
