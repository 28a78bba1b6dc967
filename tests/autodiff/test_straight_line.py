"""Branches and loops written out: gradients of what is in them, and what stays a refusal."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff import GradientSession, build_vjp, write_back
from onnxprune.errors import ModelError
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting

ONE = Setting(threads=1)
FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32) * 0.5


def _info(name: str, kind: int = FLOAT, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(*nodes: onnx.NodeProto, **weights: np.ndarray) -> Model:
    graph = helper.make_graph(
        list(nodes),
        "flow",
        [_info("x", shape=[4, 3])],
        [_info("y")],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def _recurrence(*, weight: bool) -> onnx.GraphProto:
    """h' = tanh(h w + x_t), which is also what the step gives."""
    stored = [numpy_helper.from_array(W, "w")] if weight else []
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["p"]),
            helper.make_node("Add", ["p", "x_t"], ["s"]),
            helper.make_node("Tanh", ["s"], ["new"]),
            helper.make_node("Identity", ["new"], ["out"]),
        ],
        "step",
        [_info("h", shape=[1, 3]), _info("x_t", shape=[3])],
        [_info("new", shape=[1, 3]), _info("out", shape=[1, 3])],
        stored,
    )


def _error(model: Model, feeds: dict[str, np.ndarray], names: list[str]) -> float:
    """The slope in a random direction against central differences."""
    graph = build_vjp(model, feeds, parameters=names)
    assert set(graph.gradients) == set(names)
    rng = np.random.default_rng(2)
    extra = {n: rng.standard_normal(shape).astype(kind) for n, (shape, kind) in graph.targets.items()}
    steps = {n: rng.standard_normal(graph.parameters[n].shape).astype(np.float32) for n in names}
    with GradientSession(graph, ONE) as session:
        found = session.evaluate({**feeds, **extra}, {}).gradients
        slope = sum(float((found[n] * steps[n]).sum()) for n in names)
        moved = [
            session.loss({**feeds, **extra}, {n: graph.parameters[n] + d * s for n, s in steps.items()})
            for d in (1e-2, -1e-2)
        ]
    return abs((moved[0] - moved[1]) / 2e-2 - slope) / abs(slope)


@pytest.mark.parametrize("weight", [False, True], ids=["weight outside", "weight in the body"])
@pytest.mark.parametrize("backwards", [0, 1])
def test_scan(weight: bool, backwards: int) -> None:
    scan = helper.make_node(
        "Scan",
        ["h0", "x"],
        ["last", "y"],
        body=_recurrence(weight=weight),
        num_scan_inputs=1,
        scan_input_directions=[backwards],
        scan_output_directions=[backwards],
    )
    weights = {"h0": np.full((1, 3), 0.1, np.float32), **({} if weight else {"w": W})}
    model = _model(scan, **weights)
    assert _error(model, {"x": X}, ["h0", "w"]) < 1e-3
    graph = build_vjp(model, {"x": X}, parameters=["w"])
    with Session(model) as original, Session(Model(graph.model)) as trained:
        fed = {"x": X, **graph.parameters, **{n: np.zeros(s, k) for n, (s, k) in graph.targets.items()}}
        result = trained.run({n: v for n, v in fed.items() if n in trained.inputs}, [graph.outputs["y"]])[0]
        assert np.allclose(result, original.run({"x": X})[0], atol=1e-6)


def _loop(condition: onnx.NodeProto, count: str) -> onnx.NodeProto:
    """v' = tanh(v w), as often as the condition lets it."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["v", "w"], ["p"]),
            helper.make_node("Tanh", ["p"], ["new"]),
            condition,
        ],
        "step",
        [_info("i", TensorProto.INT64, []), _info("c", TensorProto.BOOL, []), _info("v", shape=[4, 3])],
        [_info("go", TensorProto.BOOL, []), _info("new", shape=[4, 3])],
    )
    return helper.make_node("Loop", [count, "", "x0"], ["y"], body=body)


STEPS = np.array(5, np.int64)


@pytest.mark.parametrize(
    "condition",
    [
        helper.make_node("Identity", ["c"], ["go"]),
        helper.make_node("Less", ["i", "two"], ["go"]),
    ],
    ids=["counted", "ended by the count of steps"],
)
def test_loop_of_known_length(condition: onnx.NodeProto) -> None:
    product = helper.make_node("MatMul", ["x", "u"], ["x0"])
    model = _model(product, _loop(condition, "n"), u=W.T.copy(), w=W, n=STEPS, two=np.array(2, np.int64))
    assert _error(model, {"x": X}, ["u", "w"]) < 1e-3


def test_loop_that_data_ends_is_refused_with_what_it_blocks() -> None:
    product = helper.make_node("MatMul", ["x", "u"], ["x0"])
    model = _model(
        product,
        helper.make_node("ReduceSum", ["x"], ["t"], keepdims=0),
        helper.make_node("Cast", ["t"], ["n"], to=TensorProto.INT64),
        _loop(helper.make_node("Identity", ["c"], ["go"]), "n"),
        u=W.T.copy(),
        w=W,
    )
    with pytest.raises(ModelError, match=r"Loop 'y': .* blocks the gradients of u, w"):
        build_vjp(model, {"x": X}, parameters=["u", "w"])


def test_weights_of_branches_are_trained_and_written_back() -> None:
    """Both branches call their weight "w"; the one that is taken is trained, and only it is changed."""

    def branch(value: float) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"])]
        return helper.make_graph(nodes, "branch", [], [_info("y0")], [numpy_helper.from_array(W * value, "w")])

    model = _model(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ReduceProd", ["s"], ["count"], keepdims=0),
        helper.make_node("Greater", ["count", "ten"], ["many"]),
        helper.make_node("If", ["many"], ["y"], then_branch=branch(1), else_branch=branch(2)),
        ten=np.array(10, np.int64),
    )
    graph = build_vjp(model, {"x": X})
    (name,) = graph.gradients
    assert name == "y/then_branch/w"
    changed = write_back(model, {name: graph.parameters[name] + 1})
    with Session(changed) as session:
        assert np.allclose(session.run({"x": X})[0], X @ (W + 1), atol=1e-5)
    branches = {a.name: a.g for a in changed.proto.graph.node[-1].attribute}
    assert np.array_equal(numpy_helper.to_array(branches["else_branch"].initializer[0]), W * 2)
