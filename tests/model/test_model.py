"""Loading from anything, saving without loss, and what happens when either goes wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import Model, load, save, to_proto

SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", Path(__file__).parents[3] / "shared"))


def make_small(ir_version: int = 8, opset: int = 17) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    if ir_version < 4:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "small",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weight],
    )
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])


def make_rich() -> onnx.ModelProto:
    """A model that has something in every corner of the format."""
    rng = np.random.default_rng(0)
    proto = make_small(ir_version=10, opset=20)
    graph = proto.graph
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.bool_):
        graph.initializer.append(numpy_helper.from_array(rng.normal(size=(3, 5)).astype(dtype), str(np.dtype(dtype))))
    graph.initializer.append(numpy_helper.from_array(np.arange(-3, 4).astype(ml_dtypes.int4), "int4"))
    graph.initializer.append(numpy_helper.from_array(np.array(["a", "b"], dtype=object), "strings"))
    graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [2], [0.5, -1.5]))
    graph.initializer.append(helper.make_tensor("typed_half", TensorProto.FLOAT16, [2], [0.5, -1.5]))
    graph.initializer.append(numpy_helper.from_array(np.float32(3.0), "scalar"))
    graph.initializer.append(numpy_helper.from_array(np.zeros((0, 2), np.float32), "nothing"))
    graph.initializer[0].doc_string = "the weight"
    graph.initializer[0].metadata_props.add(key="tensor", value="meta")
    values = numpy_helper.from_array(np.array([5.0, 7.0], np.float32), "sparse")
    flat = numpy_helper.from_array(np.array([1, 4], np.int64), "sparse_indices")
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, flat, [2, 3]))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "inner")],
    )
    constant = helper.make_node(
        "Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True), "w")
    )  # named like an initializer
    choice = helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    custom = helper.make_node("Twice", ["y"], ["u"], domain="local", doc_string="call")
    custom.metadata_props.add(key="node", value="meta")
    graph.node.extend([constant, choice, custom])
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    graph.value_info.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, ["batch", 3]))
    graph.doc_string = "graph doc"
    graph.metadata_props.add(key="graph", value="meta")
    annotation = graph.quantization_annotation.add(tensor_name="w")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scalar")
    imports = [helper.make_opsetid("", 20)]
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, imports))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.producer_name, proto.producer_version, proto.domain = "maker", "1.2", "org.example"
    proto.model_version, proto.doc_string = 7, "model doc"
    proto.metadata_props.add(key="author", value="somebody")
    return proto


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(make_small().SerializeToString())
    return path


def test_a_proto_is_neither_copied_nor_changed() -> None:
    proto = make_rich()
    before = proto.SerializeToString()
    model = load(proto)
    to_proto(model), model.digest, model.nbytes
    assert model.proto is proto
    assert proto.SerializeToString() == before


def test_importing_the_module_does_not_import_graphsurgeon_or_a_runtime() -> None:
    heavy = "{'onnx_graphsurgeon', 'onnxruntime', 'onnx.reference'}"
    code = f"import sys, onnxprune.model; assert not {heavy} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(("ir_version", "opset"), [(3, 7), (3, 9), (4, 11), (8, 17), (10, 21)])
def test_versions(ir_version: int, opset: int) -> None:
    proto = make_small(ir_version, opset)
    model = load(proto.SerializeToString())
    assert to_proto(model) == proto
    np.testing.assert_array_equal(model.array("w"), np.arange(12).reshape(4, 3))


def test_arrays_of_every_type() -> None:
    model = load(make_rich())
    for tensor in model.proto.graph.initializer:
        array = model.array(tensor.name)
        np.testing.assert_array_equal(array, numpy_helper.to_array(tensor))
        assert array.dtype == helper.tensor_dtype_to_np_dtype(tensor.data_type)
        assert not array.flags.writeable
    assert model.array("bfloat16").dtype == ml_dtypes.bfloat16
    assert model.array("scalar").shape == ()
    assert model.array("nothing").shape == (0, 2)
    np.testing.assert_array_equal(model.array("int4").astype(int), np.arange(-3, 4))


def test_sparse_initializers_are_made_dense() -> None:
    proto = make_rich()
    np.testing.assert_array_equal(load(proto).array("sparse"), [[0, 5, 0], [0, 7, 0]])
    pairs = numpy_helper.from_array(np.array([[0, 1], [1, 1]], np.int64), "sparse_indices")
    proto.graph.sparse_initializer[0].indices.CopyFrom(pairs)
    np.testing.assert_array_equal(load(proto).array("sparse"), [[0, 5, 0], [0, 7, 0]])


def test_an_array_of_a_constant_is_its_own_even_if_it_bears_the_name_of_another() -> None:
    model = replace(load(make_rich()), values={"w": lambda: np.zeros((4, 3), np.float32)})
    constant = model.proto.graph.node[1].attribute[0].t
    assert constant.name == "w"
    assert model.array(constant) == np.array(True)
    np.testing.assert_array_equal(model.array("w"), np.zeros((4, 3)))
    np.testing.assert_array_equal(model.array(model.proto.graph.initializer[0]), np.zeros((4, 3)))


def test_an_unknown_name() -> None:
    with pytest.raises(ModelError, match="has no initializer 'absent'"):
        load(make_small()).array("absent")


def test_data_that_does_not_fit_its_shape() -> None:
    proto = make_small()
    proto.graph.initializer[0].dims[0] = 5
    with pytest.raises(ModelError, match=r"'w' .*cannot be read"):
        load(proto, check=False).array("w")


def test_nbytes_counts_all_tensors() -> None:
    assert load(make_small()).nbytes == 48
    proto = make_small()
    proto.graph.node.append(
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(10, np.int64)))
    )
    assert load(proto).nbytes == 128


def test_digest_knows_content_not_storage(tmp_path: Path) -> None:
    proto = make_rich()
    digest = load(proto).digest
    assert digest.startswith("sha256:")
    assert len(digest) == len("sha256:") + 64
    save(load(proto), tmp_path / "a.onnx", external=True)
    assert load(tmp_path / "a.onnx").digest == digest
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("typed"):
            assert not tensor.HasField("raw_data")
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
            assert tensor.HasField("raw_data")
    assert load(proto).digest == digest


def test_digest_changes_with_weights_and_with_structure() -> None:
    digests = {load(make_small()).digest}
    proto = make_small()
    raw = bytearray(proto.graph.initializer[0].raw_data)
    raw[0] ^= 1
    proto.graph.initializer[0].raw_data = bytes(raw)
    digests.add(load(proto).digest)
    proto = make_small()
    proto.graph.node[0].name = "other"
    digests.add(load(proto).digest)
    digests.add(replace(load(make_small()), values={"w": lambda: np.ones((4, 3), np.float32)}).digest)
    assert len(digests) == 4


def compare(first: onnx.ModelProto, second: onnx.ModelProto) -> None:
    """Field by field, so that a failure names the field."""
    for message, other in ((first, second), (first.graph, second.graph)):
        names = [field.name for field, _ in message.ListFields()]
        assert names == [field.name for field, _ in other.ListFields()]
        for name in names:
            assert getattr(message, name) == getattr(other, name), name


def test_a_big_tensor_moved_out_and_back_is_the_same(tmp_path: Path) -> None:
    proto = make_rich()
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(5000, dtype=np.float32), "big"))
    save(load(proto), tmp_path / "a.onnx", external=True)
    save(load(tmp_path / "a.onnx"), tmp_path / "b.onnx", external=False)
    assert (tmp_path / "a.onnx.data").stat().st_size == 20_000
    compare(proto, onnx.load(tmp_path / "b.onnx"))
    assert (tmp_path / "b.onnx").read_bytes() == proto.SerializeToString()


@pytest.mark.parametrize("level", ["model", "graph", "tensor"])
def test_fields_of_a_newer_onnx_survive(level: str) -> None:
    proto = make_small()
    message = {"model": proto, "graph": proto.graph, "tensor": proto.graph.initializer[0]}[level]
    message.MergeFromString(b"\xc2\x3e\x05hello")  # field 1000, length-delimited
    stream = io.BytesIO()
    save(load(proto), stream)
    assert b"hello" in stream.getvalue()
    assert onnx.load_from_string(stream.getvalue()) == proto


def test_values_are_made_when_written(tmp_path: Path) -> None:
    proto = make_small()
    weight = proto.graph.initializer[0]
    weight.dims[1] = 2
    weight.ClearField("raw_data")
    calls = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.full((4, 2), 3, np.float32)

    model = Model(proto, values={"w": make})
    assert not calls
    save(model, tmp_path / "out.onnx")
    np.testing.assert_array_equal(load(tmp_path / "out.onnx", check=False).array("w"), make())
    np.testing.assert_array_equal(numpy_helper.to_array(to_proto(model).graph.initializer[0]), make())
    assert not weight.HasField("raw_data")


@pytest.mark.parametrize("wrong", [np.zeros((4, 2), np.float32), np.zeros((4, 3), np.float64)])
def test_values_that_do_not_fit_are_refused(wrong: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tensor 'w' is float32"):
        save(Model(make_small(), values={"w": lambda: wrong}), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_a_real_full_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # a limit on file sizes is the disk that anybody can fill
    code = (
        "import resource, signal; from onnxprune.errors import RunError; from tests.model.test_model import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "proto = make_small()\n"
        "proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 19), 'big'))\n"
        "for external in (True, False):\n"
        "    with pytest.raises(RunError, match='disk full'):\n"
        f"        save(load(proto), {str(tmp_path / 'o.onnx')!r}, external=external)\n"
    )
    assert resource
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert not list(tmp_path.iterdir())


def test_a_second_file_that_cannot_be_placed_takes_the_first_with_it(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.suffix == ".onnx":
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save(load(small), tmp_path / "out.onnx", external=True)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the shared models are not here")
def test_every_shared_model_loads_and_is_saved_unchanged(tmp_path: Path) -> None:
    paths = sorted((SHARED / "models").glob("*.onnx"))
    assert paths
    for path in paths:
        model = load(path)
        if model.external:
            assert model.array(model.proto.graph.initializer[0]).size
            continue
        save(model, tmp_path / path.name)
        back = onnx.load(tmp_path / path.name)
        assert back == model.proto, path.name
        (tmp_path / path.name).unlink()
