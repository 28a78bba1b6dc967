"""All tensors of a model, their sizes, and whether they hold their data."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model.tensors import (
    byte_size,
    check_stored,
    dtype_of,
    is_external,
    item_bits,
    nodes,
    tensors,
    to_buffer,
)


def tensor(name: str) -> TensorProto:
    return numpy_helper.from_array(np.ones(2, np.float32), name)


def everywhere() -> onnx.ModelProto:
    """A tensor wherever a model may hold one."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor("constant"))], "b", [], [], [tensor("of a body")]
    )
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    sparse = helper.make_sparse_tensor(tensor("values"), numpy_helper.from_array(np.array([0, 1]), "indices"), [4])
    graph = helper.make_graph([branch], "g", [], [], [tensor("initializer")], sparse_initializer=[sparse])
    function = helper.make_function(
        "own", "f", [], ["z"], [helper.make_node("Constant", [], ["z"], value=tensor("of a function"))], []
    )
    function.attribute_proto.append(helper.make_attribute("a", tensor("a default")))
    proto = helper.make_model(graph, functions=[function])
    info = proto.training_info.add()
    info.initialization.initializer.append(tensor("training"))
    return proto


def test_every_tensor_is_found() -> None:
    found = sorted(t.name for t in tensors(everywhere()))
    assert found == sorted(
        [
            "initializer",
            "values",
            "indices",
            "of a body",
            "of a body",
            "constant",
            "constant",
            "of a function",
            "a default",
            "training",
        ]
    )
    assert sorted(n.op_type for n in nodes(everywhere())) == ["Constant", "Constant", "Constant", "If"]


@pytest.mark.parametrize(
    ("kind", "dims", "size"),
    [
        (TensorProto.FLOAT, [3, 4], 48),
        (TensorProto.BFLOAT16, [3], 6),
        (TensorProto.INT4, [3], 2),
        (TensorProto.UINT4, [4], 2),
        (TensorProto.BOOL, [5], 5),
        (TensorProto.COMPLEX64, [2], 16),
        (TensorProto.DOUBLE, [], 8),
        (TensorProto.FLOAT, [0, 4], 0),
    ],
)
def test_sizes(kind: int, dims: list[int], size: int) -> None:
    assert byte_size(TensorProto(name="t", data_type=kind, dims=dims)) == size


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ModelError, match="negative dimension"):
        byte_size(TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[-1]))
    with pytest.raises(ModelError, match="tensor 't': data type 99 is unknown"):
        byte_size(TensorProto(name="t", data_type=99, dims=[1]))
    with pytest.raises(ModelError, match="element type 99"):
        dtype_of(99)
    assert item_bits(TensorProto.FLOAT16) == 16 and dtype_of(TensorProto.INT64) == np.int64


def test_a_tensor_must_hold_what_its_shape_asks_for() -> None:
    good = numpy_helper.from_array(np.ones((2, 3), np.float32), "t")
    check_stored(good)
    for spoil, says in (
        (lambda t: t.dims.append(2), r"holds 24 bytes, its shape \[2, 3, 2\] needs 48"),
        (lambda t: setattr(t, "raw_data", b""), "holds no data"),
        (lambda t: t.segment.SetInParent(), "stored in segments"),
    ):
        bad = TensorProto()
        bad.CopyFrom(good)
        spoil(bad)
        with pytest.raises(ModelError, match=says):
            check_stored(bad)
    typed = helper.make_tensor("t", TensorProto.COMPLEX64, [2], [1 + 2j, 3 + 4j])
    check_stored(typed)
    typed.float_data.pop()
    with pytest.raises(ModelError, match=r"holds 3 values, its shape .* needs 4"):
        check_stored(typed)


def test_arrays_become_the_bytes_of_a_tensor() -> None:
    of = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2, 2])
    array = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert bytes(to_buffer(array.T, of)) == np.ascontiguousarray(array.T).tobytes()
    with pytest.raises(ModelError, match=r"is float32 .2, 2., but its data is float64"):
        to_buffer(array.astype(np.float64), of)
    with pytest.raises(ModelError, match="but its data is"):
        to_buffer(array.reshape(4), of)


def test_external() -> None:
    assert not is_external(tensor("t"))
    assert is_external(TensorProto(data_location=TensorProto.EXTERNAL))
