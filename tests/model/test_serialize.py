"""Models written byte for byte as protobuf would, without a second copy of the weights."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model.serialize import Blob, DataFile, model_blob, tensor_blob, without_data
from tests.graphs.net import Net


def joined(blob: Blob) -> bytes:
    found = b"".join(bytes(piece) for piece in blob.pieces())
    assert len(found) == blob.size, "the size is known before"
    return found


def proto_of() -> onnx.ModelProto:
    net = Net()
    h = net.add("MatMul", net.input([2, 40]), net.weight(40, 30, name="w"))
    net.output(net.add("Add", h, net.weight(30, name="b")))
    return net.proto()


def test_an_unchanged_model_is_the_same_bytes() -> None:
    proto = proto_of()
    blob = model_blob(proto, [tensor_blob(t, None) for t in proto.graph.initializer])
    assert joined(blob) == proto.SerializeToString(deterministic=True)


def test_replaced_data_is_read_back() -> None:
    proto = proto_of()
    new = np.full((40, 30), 2.5, np.float32)
    blobs = [
        tensor_blob(t, Blob(new.nbytes, lambda: (new.tobytes(),)) if t.name == "w" else None)
        for t in proto.graph.initializer
    ]
    again = onnx.ModelProto.FromString(joined(model_blob(proto, blobs)))
    values = {t.name: numpy_helper.to_array(t) for t in again.graph.initializer}
    assert (values["w"] == 2.5).all() and (values["b"] == numpy_helper.to_array(proto.graph.initializer[1])).all()
    assert again.graph.node == proto.graph.node and again.graph.output == proto.graph.output


def test_fields_of_a_newer_onnx_stay() -> None:
    proto = proto_of()
    unknown = b"\xfa\x7f\x03abc"  # field 2047, length-delimited
    newer = onnx.ModelProto.FromString(proto.SerializeToString() + unknown)
    assert unknown in joined(model_blob(newer, [tensor_blob(t, None) for t in newer.graph.initializer]))


def test_a_tensor_without_its_data_says_all_else() -> None:
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    tensor.doc_string, tensor.data_location = "about it", TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="old.bin")
    bare = without_data(tensor)
    assert (bare.name, list(bare.dims), bare.doc_string) == ("w", [2, 3], "about it")
    assert not bare.raw_data and not bare.external_data and not bare.HasField("data_location")


def test_data_in_a_file_is_aligned_and_referred_to() -> None:
    file = io.BytesIO()
    data = DataFile(file, "model.data")
    tensors = [
        TensorProto(name=n, dims=[s], data_type=TensorProto.UINT8) for n, s in (("a", 3), ("b", 5), ("c", 1 << 20))
    ]
    for tensor in tensors:
        size = tensor.dims[0]
        data.add(tensor, Blob(size, lambda size=size: (b"\x01" * size,)))
    places = [{e.key: e.value for e in t.external_data} for t in tensors]
    assert [int(p["offset"]) for p in places] == [0, 64, 4096] and {p["location"] for p in places} == {"model.data"}
    written = file.getvalue()
    for place in places:
        start, size = int(place["offset"]), int(place["length"])
        assert written[start : start + size] == b"\x01" * size
    assert len(written) == 4096 + (1 << 20) and written.count(b"\x01") == 8 + (1 << 20)


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="the data of tensor 'a' does not fit"):
        DataFile(io.BytesIO(), "d").add(TensorProto(name="a", dims=[4]), Blob(4, lambda: (b"abc",)))
