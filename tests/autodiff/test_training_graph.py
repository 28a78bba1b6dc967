"""Training graphs of whole models: gradients, refusals, frozen parameters, taps, write-back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff import BackwardNode, Value, build, build_vjp, register_vjp, unshared
from onnxprune.autodiff.losses import cross_entropy, distillation, mse, relative_squares
from onnxprune.autodiff.registry import find_vjp
from onnxprune.autodiff.session import GradientSession, write_back
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model, load
from onnxprune.model.shapes.infer import infer
from onnxprune.runtime import Session, Setting
from onnxprune.runtime.random_inputs import random_feeds

MODELS = Path(__file__).parents[2] / "models"
ONE = Setting(threads=1)
DISTANCES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)


def _feeds(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    return dict(random_feeds(model, infer(model), np.random.default_rng(seed)))


def _error(session: GradientSession, feeds: Mapping[str, np.ndarray], seed: int = 0) -> float:
    """Relative error of the slope in a random direction, at the best of some distances."""
    rng, start = np.random.default_rng(seed), session.graph.parameters
    gradients = session.evaluate(feeds, start).gradients
    steps = {n: rng.standard_normal(a.shape) * float(np.abs(a).mean()) for n, a in start.items() if n in gradients}
    slope = sum(float((gradients[n].astype(np.float64) * s).sum()) for n, s in steps.items())

    def loss(distance: float) -> float:
        moved = {n: np.asarray(start[n] + distance * s, start[n].dtype) for n, s in steps.items()}
        return session.evaluate(feeds, moved).loss

    measured = [(loss(d) - loss(-d)) / (2 * d) for d in DISTANCES]
    return min(abs(m - slope) / max(abs(m), abs(slope)) for m in measured)


# Smooth models, and such with corners where the differences are not too close to one.
@pytest.mark.parametrize(
    "name",
    [
        *("bert", "convnext", "double", "efficientnet", "encoder_decoder", "fused", "gpt2", "llama", "llama_23"),
        *("lstm", "mixer", "mlp", "mobilenet_v3", "vit", "yolo", "dcgan", "bfloat16", "merged"),
        *("einsum", "functions", "group_norm", "swin"),
    ],
)
def test_gradients_of_bundled_models(name: str) -> None:
    model = load(MODELS / f"{name}.onnx")
    feeds = _feeds(model)
    graph = build_vjp(model, feeds)
    assert set(graph.gradients) == set(graph.parameters)
    assert {array.dtype.name for array in graph.parameters.values()} <= {"float32", "float64"}
    rng = np.random.default_rng(1)
    extra = {n: rng.standard_normal(shape).astype(kind) for n, (shape, kind) in graph.targets.items()}
    with GradientSession(graph, ONE) as session:
        assert _error(session, {**feeds, **extra}) < 5e-3


@pytest.mark.parametrize("name", ["alexnet", "channels_last", "densenet", "half", "resnext", "shufflenet", "unet"])
def test_the_forward_pass_is_that_of_the_model(name: str) -> None:
    """The outputs of the training graph are those of the model, to the precision of its weights."""
    model = load(MODELS / f"{name}.onnx")
    feeds = _feeds(model)
    graph = build_vjp(model, feeds)
    given = {n: np.zeros(shape, kind) for n, (shape, kind) in graph.targets.items()}
    wide = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in feeds.items()}
    with Session(Model(graph.model)) as trained, Session(model) as original:
        everything = {**wide, **given, **graph.parameters}
        inputs = {n: v for n, v in everything.items() if n in trained.inputs}
        results = trained.run(inputs, [graph.outputs[n] for n in original.outputs])
        for result, wanted in zip(results, original.run(feeds), strict=True):
            tolerance = 2e-2 if wanted.dtype == np.float16 else 1e-4
            assert np.abs(result - wanted.astype(np.float32)).max() <= tolerance * np.abs(wanted).max()


def _chain(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (3, 4), opset: int = 18) -> Model:
    """x [5, 3] times w [3, 4], then the nodes, which read "h" and end in "y"."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), *nodes],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), "w")],
    )
    imports = [helper.make_opsetid(domain, 1) for domain in ("my.domain", "com.microsoft")]
    imports.append(helper.make_opsetid("", opset))
    return Model(helper.make_model(graph, opset_imports=imports, ir_version=8))


X = {"x": np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)}


def test_the_gradient_of_a_product_is_the_formula() -> None:
    graph = build(_chain(helper.make_node("Identity", ["h"], ["y"])), X, mse())
    target = np.ones((5, 4), np.float32)
    with GradientSession(graph, ONE) as session:
        found = session.evaluate({**X, "target": target}, {})
    y = X["x"] @ graph.parameters["w"]
    assert found.loss == pytest.approx(float(((y - target) ** 2).mean()), rel=1e-5)
    assert np.allclose(found.gradients["w"], X["x"].T @ (2 * (y - target) / y.size), atol=1e-6)


def test_a_use_in_two_places_adds_up() -> None:
    """y = h * h: both uses of one tensor in one node count."""
    graph = build_vjp(_chain(helper.make_node("Mul", ["h", "h"], ["y"])), X)
    weight = np.ones((5, 4), np.float32)
    with GradientSession(graph, ONE) as session:
        found = session.evaluate({**X, "gradient/y": weight}, {}).gradients["w"]
    assert np.allclose(found, X["x"].T @ (2 * (X["x"] @ graph.parameters["w"])), atol=1e-4)


# An operator of the runtime that has no rule: y = the largest of each region of an image.
BOX = numpy_helper.from_array(np.array([[0, 0, 0, 3, 4]], np.float32), "box")


def _pooled(name: str, output: str) -> list[onnx.NodeProto]:
    """The tensor `name`, [5, 4], as an image whose regions are pooled."""
    return [
        helper.make_node("Unsqueeze", [name, "front"], ["image"]),
        helper.make_node("MaxRoiPool", ["image", "box"], [output], name="regions", pooled_shape=[1, 1]),
    ]


def _with_box(model: Model) -> Model:
    front = numpy_helper.from_array(np.array([0, 1]), "front")
    model.proto.graph.initializer.extend([BOX, front])
    return Model(model.proto)


def test_an_operator_without_a_rule_is_named_with_what_it_blocks() -> None:
    model = _with_box(_chain(*_pooled("h", "y")))
    with pytest.raises(ModelError, match=r"MaxRoiPool 'regions': .*no rule.* gradients of w") as error:
        build_vjp(model, X)
    assert "register_vjp" in error.value.hint
    with pytest.raises(ModelError, match=r"MaxRoiPool 'regions': .* gradients of w") as error:
        build_vjp(model, X, freeze=True)
    assert "nothing is left to train" in error.value.hint


def test_a_parameter_with_one_blocked_path_is_frozen_whole() -> None:
    """w reaches y by Add and by an operator without a rule: half of its gradient would be wrong."""
    nodes = [
        helper.make_node("Hardmax", ["h"], ["p"]),
        helper.make_node("Add", ["h", "p"], ["q"]),
        helper.make_node("MatMul", ["q", "v"], ["z"]),
        *_pooled("q", "u"),
        helper.make_node("ReduceSum", ["u"], ["total"], keepdims=0),
        helper.make_node("Add", ["z", "total"], ["y"]),
    ]
    model = _chain(*nodes)
    model.proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 2), np.float32), "v"))
    graph = build(_with_box(model), X, mse(), freeze=True)
    assert set(graph.gradients) == {"v"}
    assert "MaxRoiPool 'regions'" in graph.frozen["w"]


def test_a_blocked_branch_freezes_what_only_it_reads_and_what_both_read() -> None:
    """u reaches the loss by the blocked branch alone, w by both, v by the other one alone."""
    nodes = [
        helper.make_node("Mul", ["h", "u"], ["a"]),
        helper.make_node("Mul", ["h", "v"], ["b"]),
        *_pooled("a", "p"),
        helper.make_node("ReduceSum", ["p"], ["total"], keepdims=0),
        helper.make_node("Add", ["b", "total"], ["y"]),
    ]
    model = _chain(*nodes)
    for name in ("u", "v"):
        model.proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), name))
    graph = build(_with_box(model), X, mse(), parameters=["u", "v", "w"], freeze=True)
    assert set(graph.gradients) == {"v"}
    assert set(graph.frozen) == {"u", "w"}


def test_a_loss_of_two_outputs() -> None:
    """sum(a b): a function of both outputs by name; b = 2 a, so the gradient by a is 4 a."""
    model = _chain(helper.make_node("Identity", ["h"], ["y"]), helper.make_node("Add", ["h", "h"], ["z"]))
    model.proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    graph = build(Model(model.proto), X, lambda graph, outputs: (outputs["y"] * outputs["z"]).sum([0, 1]))
    with GradientSession(graph, ONE) as session:
        found = session.evaluate(X, {})
    y = X["x"] @ graph.parameters["w"]
    assert found.loss == pytest.approx(2 * float((y * y).sum()), rel=1e-5)
    assert np.allclose(found.gradients["w"], X["x"].T @ (4 * y), rtol=1e-4, atol=1e-4)


def test_gradients_of_outputs_from_outside() -> None:
    model = _chain(helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Neg", ["h"], ["z"]))
    model.proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    graph = build_vjp(Model(model.proto), X)
    by_y = np.random.default_rng(0).standard_normal((5, 4))  # of any float type
    with GradientSession(graph, ONE) as session:
        found = session.vjp(X, {"y": by_y}, {})
        both = session.vjp(X, {"y": by_y, "z": by_y}, {})
        with pytest.raises(UsageError, match="'h' is no float output"):
            session.vjp(X, {"h": by_y}, {})
        with pytest.raises(UsageError, match=r"shape \[4\], and the output \[5, 4\]"):
            session.vjp(X, {"y": by_y[0]}, {})
    through = by_y * (X["x"] @ graph.parameters["w"] > 0)
    assert np.allclose(found["w"], X["x"].T @ through, atol=1e-5)
    assert np.allclose(both["w"], X["x"].T @ (through - by_y), atol=1e-5)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25])
def test_every_opset(opset: int) -> None:
    """A small network as each version of ONNX writes it, against central differences."""
    axes = [helper.make_node("ReduceMean", ["d"], ["m"], axes=[1])]
    if opset >= 18:
        axes = [helper.make_node("ReduceMean", ["d", "one"], ["m"])]
    nodes = [
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("Softmax", ["a"], ["s"], axis=1),
        helper.make_node("BatchNormalization", ["s", "g", "b", "mean", "var"], ["n"]),
        helper.make_node("Dropout", ["n"], ["d"]),
        *axes,
        helper.make_node("Sub", ["d", "m"], ["c"]),
        helper.make_node("PRelu", ["c", "g"], ["y"]),
    ]
    model = _chain(*nodes, opset=opset)
    rng = np.random.default_rng(0)
    arrays = {n: rng.random(4).astype(np.float32) + 0.1 for n in ("g", "b", "mean", "var")}
    arrays["one"] = np.array([1])
    model.proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    graph = build_vjp(Model(model.proto), X, parameters=["w", "g", "b"])
    assert set(graph.gradients) == {"w", "g", "b"}
    with GradientSession(graph, ONE) as session:
        extra = {n: rng.standard_normal(shape).astype(kind) for n, (shape, kind) in graph.targets.items()}
        assert _error(session, {**X, **extra}) < 5e-3


def test_weights_that_are_equal_by_chance_get_one_for_each_use() -> None:
    """An exporter stores the ones of two norms once; a table that is tied on purpose stays tied."""
    nodes = [
        helper.make_node("LayerNormalization", ["h", "ones"], ["n"]),
        helper.make_node("Mul", ["n", "n"], ["q"]),
        helper.make_node("MatMul", ["q", "table"], ["r"]),
        helper.make_node("MatMul", ["r", "table"], ["t"]),
        helper.make_node("LayerNormalization", ["t", "ones"], ["y"]),
    ]
    model = _chain(*nodes)
    arrays = {"ones": np.ones(4, np.float32), "table": np.random.default_rng(0).random((4, 4)).astype(np.float32)}
    model.proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    model = Model(model.proto)
    target = {"target": np.zeros((5, 4), np.float32)}
    own = unshared(model)
    assert own is not model and unshared(own) is own
    results = []
    for each in (model, own):
        with GradientSession(build(each, X, mse()), ONE) as session:
            results.append(session.evaluate({**X, **target}, {}))
    together, apart = results
    assert apart.loss == pytest.approx(together.loss, rel=1e-6)
    scales = [n for n in apart.gradients if n.startswith("ones")]
    assert len(scales) == 2 and set(apart.gradients) - set(scales) == {"w", "table"}
    assert np.allclose(sum(apart.gradients[n] for n in scales), together.gradients["ones"], atol=1e-6)


def test_gradients_stop_at_steps() -> None:
    with pytest.raises(ModelError, match="no parameter of the model reaches the loss"):
        build_vjp(_chain(helper.make_node("Floor", ["h"], ["y"])), X)


def test_a_rule_of_a_user() -> None:
    @register_vjp("MaxRoiPool", domain="my.domain")
    def none(node: BackwardNode) -> list[Value | None]:
        return [node.dy * node.x.mask("Greater", 0.0)]

    assert find_vjp("my.domain", "MaxRoiPool") is none
    assert find_vjp("", "MaxRoiPool") is None


def test_taps_are_sums_of_activation_times_gradient() -> None:
    graph = build(_chain(helper.make_node("Relu", ["h"], ["y"])), X, mse(), taps=["h"])
    target = np.zeros((5, 4), np.float32)
    with GradientSession(graph, ONE) as session:
        tap = session.evaluate({**X, "target": target}, {}).taps["h"]
    h = X["x"] @ graph.parameters["w"]
    assert np.allclose(tap, h * 2 * np.maximum(h, 0) / h.size, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_zero_at_the_teacher_and_cross_entropy_ignores_padding(temperature: float) -> None:
    model = _chain(helper.make_node("Identity", ["h"], ["y"]))
    graph = build(model, X, distillation(temperature=temperature))
    logits = X["x"] @ graph.parameters["w"]
    with GradientSession(graph, ONE) as session:
        same = session.evaluate({**X, "teacher": logits}, {})
        other = session.evaluate({**X, "teacher": logits[::-1].copy()}, {})
    assert abs(same.loss) < 1e-6 < other.loss
    assert all(np.abs(g).max() < 1e-6 for g in same.gradients.values())
    graph = build(model, X, cross_entropy())
    labels = np.array([0, 1, -1, 2, -1])
    with GradientSession(graph, ONE) as session:
        loss = session.evaluate({**X, "target": labels}, {}).loss
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-float(np.mean([logs[i, k] for i, k in enumerate(labels) if k >= 0])), rel=1e-5)


def test_relative_squares_do_not_depend_on_the_scale() -> None:
    graph = build(_chain(helper.make_node("Identity", ["h"], ["y"])), X, relative_squares())
    teacher = (X["x"] @ graph.parameters["w"]) * 2
    with GradientSession(graph, ONE) as session:
        assert session.evaluate({**X, "teacher/y": teacher}, {}).loss == pytest.approx(0.25, rel=1e-4)


def test_write_back_changes_values_alone() -> None:
    model = load(MODELS / "half.onnx")
    names = [t.name for t in model.proto.graph.initializer if t.data_type == TensorProto.FLOAT16]
    changed = write_back(model, {names[0]: model.array(names[0]).astype(np.float32) + 1})
    assert np.allclose(changed.array(names[0]), model.array(names[0]) + 1, atol=1e-2)
    assert changed.array(names[0]).dtype == np.float16
    assert changed.proto.graph.node == model.proto.graph.node
    with pytest.raises(UsageError, match="no weight 'nothing'"):
        write_back(model, {"nothing": np.zeros(1)})
    with pytest.raises(UsageError, match="has shape"):
        write_back(model, {names[0]: np.zeros(1)})


def test_sparse_weights_stay_as_they_are() -> None:
    """A dense gradient would fill them up."""
    model = load(MODELS / "sparse.onnx")
    graph = build_vjp(model, _feeds(model))
    assert {s.values.name for s in model.proto.graph.sparse_initializer} == {"sparse"}
    assert set(graph.gradients) == {"fc.weight", "fc.bias", "fc_1.weight", "fc_1.bias"}
    changed = write_back(model, {name: array + 1 for name, array in graph.parameters.items()})
    assert np.array_equal(changed.array("fc.bias"), model.array("fc.bias") + 1)


def test_an_input_that_is_not_fed_is_named() -> None:
    graph = build(_chain(helper.make_node("Identity", ["h"], ["y"])), X, mse())
    with GradientSession(graph, ONE) as session, pytest.raises(UsageError, match="'target' is not fed"):
        session.evaluate(X, {})


def test_names_and_globs_choose_parameters() -> None:
    model = load(MODELS / "mlp.onnx")
    graph = build(model, _feeds(model), mse(), parameters=["fc*.weight"])
    assert graph.gradients
    assert all(name.endswith(".weight") for name in graph.gradients)
    with pytest.raises(ModelError, match="no initializer matches"):
        build(model, _feeds(model), mse(), parameters=["nothing*"])
