"""Files that ONNX Runtime accepts and ONNX's checker refuses: mended where there is one way only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune import api, sensitivity
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import load
from onnxprune.model.mend import MENDS

FLOAT = TensorProto.FLOAT


def weight(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(shape) / 4
    return numpy_helper.from_array(values.astype(np.float32), name)


def of(
    nodes: Sequence[NodeProto], *weights: TensorProto, x: Sequence[int] = (1, 8), y: Sequence[int] = (1, 4)
) -> ModelProto:
    inputs = [helper.make_tensor_value_info("x", FLOAT, x)]
    outputs = [helper.make_tensor_value_info("y", FLOAT, y)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain() -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="wide"),
        helper.make_node("Relu", ["a"], ["b"], name="bend"),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="narrow"),
    ]
    return of(nodes, weight("w1", 8, 16), weight("w2", 16, 4))


def convolutions(**sizes: Sequence[int]) -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "k2"], ["y"]),
    ]
    shapes: dict[str, Sequence[int]] = {"x": (1, 3, 8, 8), "y": (1, 4, 8, 8), **sizes}
    return of(nodes, weight("k1", 16, 3, 3, 3), weight("k2", 4, 16, 1, 1), x=shapes["x"], y=shapes["y"])


def shuffled(proto: ModelProto, order: Sequence[int]) -> ModelProto:
    nodes = [NodeProto.FromString(proto.graph.node[i].SerializeToString()) for i in order]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def run(proto: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def feed(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# --- order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_nodes_are_sorted(order: Sequence[int]) -> None:
    proto = shuffled(chain(), order)
    given = proto.SerializeToString()
    model = load(proto)
    assert [node.name for node in model.proto.graph.node] == ["wide", "bend", "narrow"]
    assert len(model.mended) == 1 and "sorted" in model.mended[0]
    assert proto.SerializeToString() == given
    onnx.checker.check_model(model.proto)
    assert model.proto.SerializeToString() == chain().SerializeToString()  # all else is untouched
    result = api.prune(proto, 0.5)
    assert result.report.verdict is not None and result.report.verdict.ok
    assert run(result.model, feed(1, 8))[0].shape == (1, 4)


def test_the_order_is_kept_where_it_may_be() -> None:
    nodes = [helper.make_node("Relu", ["late"], ["y"], name="0")]
    nodes += [helper.make_node("Neg", ["x"], [f"n{i}"], name=str(i)) for i in range(1, 9)]
    nodes.append(helper.make_node("MatMul", ["x", "w"], ["late"], name="9"))
    model = load(of(nodes, weight("w", 8, 4)))
    assert [node.name for node in model.proto.graph.node] == [*"123456789", "0"]


def branch(name: str, *, in_order: bool) -> onnx.GraphProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], [f"{name}_p"]),
        helper.make_node("Relu", [f"{name}_p"], [f"{name}_q"]),
    ]
    out = helper.make_tensor_value_info(f"{name}_q", FLOAT, (1, 4))
    return helper.make_graph(nodes if in_order else nodes[::-1], name, [], [out])


def test_bodies_are_sorted() -> None:
    def proto(in_order: bool) -> ModelProto:
        branches = {f"{side}_branch": branch(side, in_order=in_order) for side in ("then", "else")}
        choice = helper.make_node("If", ["c"], ["y"], **branches)
        made = of([choice], weight("w", 8, 4))
        made.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
        return made

    model = load(proto(False))
    assert model.proto.SerializeToString() == load(proto(True)).proto.SerializeToString()
    assert "'then' of If 'y'" in model.mended[0] and "'else' of If 'y'" in model.mended[0]


def test_a_node_waits_for_what_its_body_reads() -> None:
    bodies = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = helper.make_tensor_value_info(f"{name}_o", FLOAT, (1, 4))
        bodies[name] = helper.make_graph([helper.make_node(op, ["late"], [f"{name}_o"])], name, [], [out])
    choice = helper.make_node("If", ["c"], ["y"], name="choice", **bodies)
    proto = of([choice, helper.make_node("MatMul", ["x", "w"], ["late"], name="first")], weight("w", 8, 4))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    assert [node.name for node in load(proto).proto.graph.node] == ["first", "choice"]


def test_functions_are_sorted() -> None:
    nodes = [helper.make_node("Relu", ["t"], ["z"]), helper.make_node("MatMul", ["a", "b"], ["t"])]
    function = helper.make_function("mine", "Layer", ["a", "b"], ["z"], nodes, [helper.make_opsetid("", 17)])
    proto = of([helper.make_node("Layer", ["x", "w"], ["y"], domain="mine")], weight("w", 8, 4))
    proto.functions.append(function)
    proto.opset_import.add(domain="mine", version=1)
    model = load(proto)
    assert [node.op_type for node in model.proto.functions[0].node] == ["MatMul", "Relu"]
    assert "function 'Layer'" in model.mended[0]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle_is_refused_by_its_names(length: int) -> None:
    ring = [helper.make_node("Add", ["x", f"t{(i + 1) % length}"], [f"t{i}"], name=f"ring{i}") for i in range(length)]
    proto = of([helper.make_node("Relu", ["t0"], ["y"], name="behind"), *ring], x=(1, 4))
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert all(f"'ring{i}'" in caught.value.message for i in range(length))
    assert "'behind'," not in caught.value.message.partition("a cycle")[2]


# --- types and shapes -------------------------------------------------------------------------------------


def no_type(value: ValueInfoProto) -> None:
    value.ClearField("type")


def no_shape(value: ValueInfoProto) -> None:
    value.type.tensor_type.ClearField("shape")


def no_element(value: ValueInfoProto) -> None:
    value.type.tensor_type.ClearField("elem_type")


@pytest.mark.parametrize("spoil", [no_type, no_shape, no_element])
@pytest.mark.parametrize("make", [chain, convolutions])
def test_outputs_get_what_inference_finds(
    make: Callable[[], ModelProto], spoil: Callable[[ValueInfoProto], None]
) -> None:
    proto = make()
    spoil(proto.graph.output[0])
    model = load(proto)
    assert model.proto.SerializeToString() == make().SerializeToString()
    assert len(model.mended) == 1 and "'y' is float [1, 4" in model.mended[0]


@pytest.mark.parametrize("inner", ["a", "b"])
def test_an_inner_tensor_that_was_made_an_output_gets_its_type(inner: str) -> None:
    proto = chain()
    proto.graph.output.append(ValueInfoProto(name=inner))
    result = api.prune(proto, 0.5, allow_io_changes=True)
    assert result.report.verdict is not None and result.report.verdict.ok
    assert [out.shape for out in run(result.model, feed(1, 4))] == [(1, 2), (1, 8)]  # all halved


def test_an_output_behind_an_operator_of_the_runtime_gets_its_type() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("BiasGelu", ["a", "bias"], ["b"], domain="com.microsoft"),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    proto = of(nodes, weight("w1", 8, 16), weight("bias", 16), weight("w2", 16, 4))
    proto.graph.output.append(ValueInfoProto(name="b"))
    model = load(proto)
    assert len(model.mended) == 2
    kind = model.proto.graph.output[1].type.tensor_type
    assert kind.elem_type == FLOAT and [d.dim_value for d in kind.shape.dim] == [1, 16]
    assert {o.domain: o.version for o in model.proto.opset_import} == {"": 17, "com.microsoft": 1}
    run(model.proto, feed(1, 8))


@pytest.mark.parametrize(
    ("make", "shape"), [(chain, [1, 8]), (convolutions, [0, 3, 0, 0]), (lambda: recurrent(), [0, 0, 8])]
)
def test_inputs_get_the_shape_that_their_consumers_leave(make: Callable[[], ModelProto], shape: list[int]) -> None:
    proto = make()
    no_shape(proto.graph.input[0])
    model = load(proto)
    assert [d.dim_value for d in model.proto.graph.input[0].type.tensor_type.shape.dim] == shape
    assert len(model.mended) == 1 and "'x' is [" in model.mended[0]
    result = api.prune(proto, 0.5)
    assert result.report.verdict is not None and result.report.verdict.ok


def recurrent() -> ModelProto:
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["s"], hidden_size=6),
        helper.make_node("Squeeze", ["s", "axis"], ["t"]),
        helper.make_node("MatMul", ["t", "w2"], ["y"]),
    ]
    axis = numpy_helper.from_array(np.array([1]), "axis")
    weights = weight("w", 1, 24, 8), weight("r", 1, 24, 6), weight("w2", 6, 4), axis
    proto = of(nodes, *weights, x=(5, 1, 8))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, ("steps", "batch", 4)))
    return proto


def open_input() -> ModelProto:
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    rows = numpy_helper.from_array(np.array([-1, 8]), "rows")
    proto = of(nodes, weight("w1", 8, 16), weight("w2", 16, 4), rows, x=(2, 2, 4))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, ("rows", 4)))
    no_shape(proto.graph.input[0])
    return proto


def test_an_input_that_stays_open_is_named_and_can_be_given_a_shape() -> None:
    with pytest.raises(ModelError, match="graph input 'x' has no shape") as caught:
        load(open_input())
    assert "--shape x=" in caught.value.hint and "shapes={'x': " in caught.value.hint
    model = load(open_input(), shapes={"x": (2, 2, 4)})
    assert model.mended == ("inputs had no shape: 'x' is [2, 2, 4]",)
    result = api.prune(model, 0.5)
    assert result.report.verdict is not None and result.report.verdict.ok
    with pytest.raises(UsageError, match="no input is called 'z'"):
        load(open_input(), shapes={"z": (1,)})


def dims(value: ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


def test_symbolic_sizes_become_numbers() -> None:
    """Those that are given, wherever they are declared; no other."""
    proto = recurrent()
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, ("steps", "batch", 8)))
    proto.graph.value_info.append(helper.make_tensor_value_info("t", FLOAT, ("steps", "batch", 6)))
    model = load(proto, shapes={"x": (5, None, 8)})
    assert model.mended == ("sizes of inputs were open: 'x' is [5, batch, 8]",)
    graph = model.proto.graph
    assert [dims(v) for v in (*graph.input, *graph.output, *graph.value_info)] == [
        [5, "batch", 8],
        [5, "batch", 4],
        [5, "batch", 6],
    ]
    assert dims(proto.graph.input[0]) == ["steps", "batch", 8]  # what was given is not changed
    again = load(model, shapes={"x": (5, 2, 8)})
    assert dims(again.proto.graph.output[0]) == [5, 2, 4] and len(again.mended) == 2
    assert load(again, shapes={"x": (5, 2, 8)}).proto is again.proto  # nothing is open any more


def test_sizes_without_a_name_become_numbers() -> None:
    proto = convolutions()
    for value in (*proto.graph.input, *proto.graph.output):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].Clear()
    model = load(proto, shapes={"x": (2, 3, 10, 12)})
    assert dims(model.proto.graph.input[0]) == [2, 3, 10, 12]
    result = api.prune(proto, 0.5, shapes={"x": (2, 3, 10, 12)})
    assert dims(result.model.graph.input[0]) == [2, 3, 10, 12]
    assert result.report.groups.model.mended == model.mended


@pytest.mark.parametrize("shape", [(5, 1), (5, 1, 9), (5, 1, 8, 1), ()])
def test_another_shape_than_that_of_the_file_is_refused(shape: Sequence[int]) -> None:
    with pytest.raises(UsageError, match="input 'x' cannot be"):
        load(recurrent(), shapes={"x": shape})


def test_two_sizes_for_one_symbol_are_refused() -> None:
    proto = chain()
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, ("n", 8)))
    proto.graph.input.append(helper.make_tensor_value_info("z", FLOAT, ("n", 3)))
    with pytest.raises(UsageError, match="input 'z' cannot be 3x3"):
        load(proto, shapes={"x": (2, 8), "z": (3, 3)})


@pytest.mark.parametrize("proto", [open_input(), recurrent()], ids=["lacks", "open"])
def test_every_step_takes_shapes(proto: ModelProto) -> None:
    if proto.graph.input[0].type.tensor_type.HasField("shape"):
        proto.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    shapes = {"x": (2, 2, 4)} if len(proto.graph.initializer) == 3 else {"x": (5, 1, 8)}
    assert api.trace(proto, shapes=shapes).groups
    plan = api.make_plan(proto, 0.5, shapes=shapes)
    small = api.apply(proto, plan, shapes=shapes)
    assert tuple(dims(small.graph.input[0])) == shapes["x"]
    assert api.prune(proto, 0.5, shapes=shapes).model == small
    assert api.verify(proto, small, plan, shapes=shapes).ok
    assert sensitivity(proto, "random", samples=8, shapes=shapes).curves


def test_an_input_without_a_type_is_named() -> None:
    proto = chain()
    no_type(proto.graph.input[0])
    with pytest.raises(ModelError, match="graph input 'x' has no type"):
        load(proto)


# --- imports ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "op", "version"),
    [("com.microsoft", "Gelu", 1), ("ai.onnx.ml", "Normalizer", 1), ("ai.onnx.ml", "Scaler", 1)],
)
def test_known_domains_are_imported(domain: str, op: str, version: int) -> None:
    attributes = {"scale": [2.0], "offset": [0.5]} if op == "Scaler" else {}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(op, ["a"], ["y"], domain=domain, **attributes),
    ]
    proto = of(nodes, weight("w", 8, 4))
    model = load(proto)
    assert {o.domain: o.version for o in model.proto.opset_import} == {"": 17, domain: version}
    assert model.mended == (f"operator sets were not imported: {domain} {version} is imported",)
    np.testing.assert_array_equal(run(model.proto, feed(1, 8))[0], run(proto, feed(1, 8))[0])


def test_functions_import_for_themselves() -> None:
    nodes = [helper.make_node("Gelu", ["a"], ["z"], domain="com.microsoft")]
    function = helper.make_function("mine", "Layer", ["a"], ["z"], nodes, [helper.make_opsetid("", 17)])
    proto = of([helper.make_node("Layer", ["x"], ["y"], domain="mine")], x=(1, 4))
    proto.functions.append(function)
    proto.opset_import.add(domain="mine", version=1)
    assert [o.domain for o in load(proto).proto.functions[0].opset_import] == ["", "com.microsoft"]


# --- names and initializers -------------------------------------------------------------------------------


def nameless(proto: ModelProto) -> None:
    proto.graph.name = ""


def stored_twice(proto: ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def unlisted(proto: ModelProto) -> None:
    proto.ir_version = 3


def by_alias(proto: ModelProto) -> None:
    for node in proto.graph.node:
        node.domain = "ai.onnx"


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (nameless, "graphs had no name: 1 is called 'graph'"),
        (stored_twice, "initializers were stored twice: the first 'w1' stays"),
        (unlisted, "initializers were no graph inputs, as IR version 3 wants: 2 are listed"),
        (by_alias, "nodes were of domain 'ai.onnx', which is not imported: that of 3 is empty"),
    ],
)
def test_what_the_runtime_runs_is_mended(spoil: Callable[[ModelProto], None], note: str) -> None:
    proto = chain()
    spoil(proto)
    before = proto.SerializeToString()
    expected = run(proto, feed(1, 8))[0]
    assert load(proto).mended == (note,)
    result = api.prune(proto, 0.5)
    onnx.checker.check_model(result.model, full_check=True)
    assert result.report.verdict is not None and result.report.verdict.ok
    np.testing.assert_array_equal(run(load(proto).proto, feed(1, 8))[0], expected)
    assert proto.SerializeToString() == before


def test_the_graphs_of_bodies_get_names() -> None:
    bodies = {f"{side}_branch": branch(side, in_order=True) for side in ("then", "else")}
    choice = helper.make_node("If", ["c"], ["y"], **bodies)
    proto = of([choice], weight("w", 8, 4), numpy_helper.from_array(np.array(True), "c"))
    proto.graph.node[0].attribute[0].g.name = ""
    assert load(proto).mended == ("graphs had no name: 1 is called 'graph'",)


def test_which_of_two_initializers_is_meant_is_in_doubt() -> None:
    proto = chain()
    proto.graph.initializer.append(weight("w1", 8, 16))
    proto.graph.initializer[-1].raw_data = bytes(8 * 16 * 4)
    with pytest.raises(ModelError, match="initializer 'w1' is defined twice"):
        load(proto)


def test_what_is_in_order_is_left_alone() -> None:
    for proto in (chain(), convolutions(), recurrent()):
        model = load(proto)
        assert model.proto is proto and not model.mended
    assert len({mend.name for mend in MENDS}) == len(MENDS)
