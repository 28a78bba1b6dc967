"""Quantised models in training: what masters stand for, what is learned, and what the model is afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxprune
from onnxprune.autodiff import GradientSession, build, write_back
from onnxprune.autodiff.losses import mse
from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.train import TrainingData, learn, zero_masks
from onnxprune.recovery import TrainingOptions, with_masters
from onnxprune.recovery.student import Student
from tests.graphs.net import Net
from tests.graphs.quantized import output, quantizable, quantized
from tests.layers.test_quantized_weight import CASES

FORMS = ("qdq", "qdq-tensor", "qdq-uint8", "int4", "blocks")


def case(kind: str, form: str) -> tuple[onnx.ModelProto, onnx.ModelProto, np.ndarray]:
    """A float model, the same with noise on its weights in a form, and inputs."""
    proto, data = quantizable(kind)
    runs = [{"x": part} for part in np.split(data, 12)]
    noisy, rng = onnx.ModelProto(), np.random.default_rng(4)
    noisy.CopyFrom(proto)
    for tensor in noisy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        noise = rng.standard_normal(array.shape) * array.std() * (0.1 * (array.ndim > 1))
        tensor.CopyFrom(numpy_helper.from_array((array + noise).astype(np.float32), tensor.name))
    if form == "int4":
        made = onnxprune.quantize(noisy, data=runs, samples=192, weights="int4", fit=False).model
        return proto, made, data
    return proto, quantized(noisy, form, runs), data


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("name", CASES)
def test_the_copy_is_fed_what_the_model_decodes(name: str) -> None:
    """Whatever the masters are: the product with the identity is what the copy is fed, by ONNX's reference."""
    model = load(CASES[name])
    masters = with_masters(model)
    ((weight, shape),) = [(n, masters.model.array(n).shape) for n in masters.grids]
    eye = {"x": np.eye(8, dtype=np.float32)}
    (before,) = ReferenceEvaluator(to_proto(masters.model)).run(None, eye)
    assert np.allclose(before, ReferenceEvaluator(CASES[name]).run(None, eye)[0], atol=1e-6)
    now = {weight: (3 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)}
    made = to_proto(write_back(model, masters.stored(now)))
    (found,) = ReferenceEvaluator(made).run(None, eye)
    (wanted,) = ReferenceEvaluator(to_proto(write_back(masters.model, masters.seen(now)))).run(None, eye)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("kind", "form"), [("conv", form) for form in FORMS[:-1]] + [("products", "blocks")])
def test_masters_that_do_not_move_change_nothing(kind: str, form: str) -> None:
    _, proto, _ = case(kind, form)
    masters = with_masters(load(proto), learn_scales=True)
    assert len(masters.grids) == (2 if form == "blocks" else 4)
    found = stored(to_proto(write_back(load(proto), masters.stored(masters.factors))))
    assert found.keys() == stored(proto).keys()
    for name, array in stored(proto).items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("name", ["tensor", "column", "blocks"])
def test_gradients_are_those_of_a_quantiser_in_the_graph(name: str) -> None:
    """The same weight, quantised by a QuantizeLinear of the graph, whose rules give the gradients."""
    proto = CASES[name]
    (node,) = (n for n in proto.graph.node if n.op_type == "DequantizeLinear")
    values = stored(proto)
    feeds = {"x": np.random.default_rng(2).standard_normal((5, 8)).astype(np.float32)}
    target = np.zeros((5, 6), np.float32)
    masters = with_masters(load(proto), learn_scales=True)
    shift = np.random.default_rng(3).uniform(-3, 3, values[node.input[0]].shape).astype(np.float32)
    master = masters.model.array(node.input[0]) + shift
    ranged = with_reach(proto, node)
    net = onnx.ModelProto()
    net.CopyFrom(ranged)
    (decoder,) = (n for n in net.graph.node if n.op_type == "DequantizeLinear")
    encoder = onnx.NodeProto()
    encoder.CopyFrom(decoder)
    encoder.op_type, encoder.output[0], encoder.input[0] = "QuantizeLinear", "encoded", "master"
    encoder.name = "encoder"
    decoder.input[0] = "encoded"
    net.graph.node.insert(0, encoder)
    net.graph.initializer.append(numpy_helper.from_array(master, "master"))
    loss = mse()
    given = {**feeds, "target": target}
    graph = build(load(net), feeds, loss, parameters=["master", node.input[1]])
    with GradientSession(graph) as session:
        wanted = session.evaluate(given, graph.parameters).gradients
    student = Student(load(ranged), loss, given, TrainingOptions(1, learn_scales=True))
    student.weights[node.input[0]][...] = master
    found = student.gradients(given).gradients
    student.close()
    assert np.allclose(found[node.input[0]], wanted["master"], rtol=1e-4, atol=1e-5)
    by_scale = wanted[node.input[1]] * values[node.input[1]]
    assert np.allclose(found[node.input[1]], by_scale.reshape(-1), rtol=1e-3, atol=1e-4)


def with_reach(proto: onnx.ModelProto, node: onnx.NodeProto) -> onnx.ModelProto:
    """The model with the whole range of int8 among its numbers, so that all of it is used."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        if tensor.name == node.input[0]:
            array = numpy_helper.to_array(tensor).copy()
            array.reshape(-1)[:2] = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return made


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize(("kind", "form"), [("conv", form) for form in FORMS[:-1]] + [("products", "blocks")])
def test_training_gives_back_what_rounding_took(kind: str, form: str, scales: bool) -> None:
    """On samples that training never saw, with the same nodes, types and shapes."""
    original, proto, data = case(kind, form)
    options = TrainingOptions(120, rate=3e-3, batch=32, threads=1, learn_scales=scales)
    model, done = learn(load(proto), TrainingData([{"x": data}], 192, teacher=load(original)), options)
    made = to_proto(model)
    assert done.after < done.before
    fresh = np.random.default_rng(1).standard_normal((64, *data.shape[1:])).astype(np.float32)
    wanted = output(original, fresh)
    before, after = (float(np.square(output(m, fresh) - wanted).mean()) for m in (proto, made))
    assert after < 0.75 * before
    assert [n.SerializeToString() for n in made.graph.node] == [n.SerializeToString() for n in proto.graph.node]
    types = {t.name: (t.data_type, tuple(t.dims)) for t in proto.graph.initializer}
    assert {t.name: (t.data_type, tuple(t.dims)) for t in made.graph.initializer} == types
    onnx.checker.check_model(made, full_check=True)


def test_the_runtime_multiplies_whole_numbers(tmp_path: Path) -> None:
    """The optimised graph has the same kernels of whole numbers as before training."""
    original, proto, data = case("conv", "qdq")
    options = TrainingOptions(20, rate=1e-3, batch=32, threads=1, learn_scales=True)
    model, _ = learn(load(proto), TrainingData([{"x": data}], 192, teacher=load(original)), options)
    kernels = [kernels_of(m, tmp_path / "optimised.onnx") for m in (proto, to_proto(model))]
    assert kernels[0] == kernels[1] and kernels[1]["QLinearConv"] == 2


def kernels_of(proto: onnx.ModelProto, path: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(path).graph.node)


def test_scales_of_biases_stay_products() -> None:
    original, proto, data = case("conv", "qdq")
    options = TrainingOptions(30, rate=3e-3, batch=32, threads=1, learn_scales=True)
    model, done = learn(load(proto), TrainingData([{"x": data}], 192, teacher=load(original)), options)
    assert done.best > 0
    before, after = stored(proto), stored(to_proto(model))
    makers = {o: n for n in proto.graph.node for o in n.output}
    convs = [n for n in proto.graph.node if n.op_type == "Conv"]
    assert len(convs) == 2
    for conv in convs:
        x, w, b = (makers[name].input[1] for name in conv.input)
        assert not np.array_equal(before[w], after[w]) and not np.array_equal(before[x], after[x])
        assert np.allclose(after[b], after[x] * after[w], rtol=1e-6)


@pytest.mark.parametrize("form", ["qdq", "int4"])
def test_zeros_stay(form: str) -> None:
    """What is zero is the zero point, and stays it."""
    original, proto, data = case("conv", form)
    model = load(proto)
    names = [n for n in with_masters(model).grids if "bias" not in n and len(model.initializers[n].dims) > 1]
    rng, zeros = np.random.default_rng(0), {}
    for name in names:
        numbers = model.array(name).astype(np.int8)
        zeros[name] = rng.random(numbers.shape) < 0.5
        model = write_back(model, {name: np.where(zeros[name], 0, numbers)})
    options = TrainingOptions(20, rate=1e-2, batch=32, threads=1)
    data_ = TrainingData([{"x": data}], 192, teacher=load(original))
    made, done = learn(model, data_, options, masks=zero_masks(model))
    assert done.best > 0
    for name in names:
        numbers = made.array(name).astype(np.int8)
        assert not numbers[zeros[name]].any()
        assert not np.array_equal(numbers, model.array(name).astype(np.int8))


def test_numbers_that_several_nodes_decode_stay() -> None:
    net = Net(opset=21)
    numbers = net.const(np.arange(-8, 8, dtype=np.int8).reshape(4, 4))
    scales = [net.const(np.float32(v)) for v in (0.1, 0.2)]
    one, two = (net.add("DequantizeLinear", numbers, s) for s in scales)
    net.output(net.add("MatMul", net.add("MatMul", net.input(["n", 4]), one), two))
    masters = with_masters(net.model())
    assert not masters.grids and masters.model is masters.given


def test_what_cannot_be_learned_is_said() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 4]), net.weight(4, 4)))
    data: Any = [{"x": np.ones((16, 4), np.float32)}]
    with pytest.raises(UsageError, match="no scales that can be learned"):
        learn(net.model(), TrainingData(data, teacher=net.model()), TrainingOptions(4, learn_scales=True))
