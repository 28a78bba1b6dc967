"""What makes a model invalid, and what is only strange."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import load
from tests.model.test_model import make_rich, make_small


def cycle(proto: ModelProto) -> None:
    proto.graph.node.insert(0, helper.make_node("Add", ["x", "b"], ["a"], name="first"))
    proto.graph.node.insert(1, helper.make_node("Relu", ["a"], ["b"]))


def dangling(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["nowhere"], ["r"], name="loose"))


def made_twice(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


def twin_initializers(proto: ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])
    proto.graph.initializer[-1].doc_string = "another"


def nameless_initializer(proto: ModelProto) -> None:
    proto.graph.initializer[0].name = ""


def short_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data = bytes(47)


def empty_weight(proto: ModelProto) -> None:
    proto.graph.initializer[0].ClearField("raw_data")


def negative_dim(proto: ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -4


def unknown_type(proto: ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def segmented(proto: ModelProto) -> None:
    proto.graph.initializer[0].segment.begin = 0


def wrong_attribute(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["r"], nonsense=3))


def too_many_inputs(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x", "y"], ["r"]))


def no_default_opset(proto: ModelProto) -> None:
    proto.opset_import[0].domain = "other"


def short_weight_in_a_branch(proto: ModelProto) -> None:
    proto.graph.node[2].attribute[0].g.initializer[0].raw_data = b"1"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cycle, "nodes are not sorted: node 'first' .Add. reads 'b', .*a cycle: '(first', 'b|b', 'first)'"),
        (dangling, "node 'loose' .Relu. reads 'nowhere', which nothing makes"),
        (made_twice, "SSA"),
        (twin_initializers, "initializer 'w' is defined twice"),
        (nameless_initializer, "has no name"),
        (short_weight, "'w' holds 47 bytes, its shape .4, 3. needs 48"),
        (empty_weight, "'w' holds no data, its shape .4, 3. needs 12"),
        (negative_dim, "'w' has a negative dimension"),
        (unknown_type, "'w': data type 99 is unknown"),
        (segmented, "'w' is stored in segments"),
        (wrong_attribute, "Unrecognized attribute: nonsense"),
        (too_many_inputs, "input size 2"),
        (no_default_opset, "No opset import"),
        (short_weight_in_a_branch, "'inner' holds 1 bytes"),
    ],
)
def test_damage_is_refused(damage: Callable[[ModelProto], None], message: str) -> None:
    proto = make_rich()
    load(proto)
    damage(proto)
    with pytest.raises(ModelError, match=message) as caught:
        load(proto)
    assert "\n" not in caught.value.message
    load(proto, check=False)


def test_a_large_constant_is_a_weight_and_is_checked_as_one() -> None:
    proto = make_small()
    weight = numpy_helper.from_array(np.zeros((3, 1000), np.float32))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=weight))
    proto.graph.node.append(helper.make_node("MatMul", ["y", "c"], ["z"]))
    load(proto)
    proto.graph.node[0].attribute[0].t.dims[0] = 4
    with pytest.raises(ModelError, match="holds 12000 bytes"):
        load(proto)


@pytest.mark.parametrize(
    ("node", "warning"),
    [
        (helper.make_node("PartitionedCall", ["x"], ["p"]), "'PartitionedCall' is not registered"),
        (helper.make_node("SimplifiedLayerNormalization", ["x", "w"], ["p"], axis=-1), "is not registered"),
        (helper.make_node("Upsample", ["x", "w"], ["p"]), "'Upsample' is not registered"),  # deprecated
        (
            helper.make_node("Anything", ["x"], ["p"], domain="com.example"),
            "imported for domain 'com.example'",
        ),
    ],
)
def test_unknown_operators_are_warned_of(node: onnx.NodeProto, warning: str, caplog: pytest.LogCaptureFixture) -> None:
    proto = make_small()
    proto.graph.node.extend([node, node])
    proto.graph.node[-1].output[0] = "q"
    before = proto.SerializeToString()
    with caplog.at_level(logging.WARNING, "onnxprune"):
        load(proto)
    assert warning in caplog.text
    assert len(caplog.records) == 1
    assert proto.SerializeToString() == before


def test_experimental_operators_of_old_are_warned_of(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    proto = make_small(opset=7)
    proto.graph.node.append(helper.make_node("ImageScaler", ["x"], ["p"], bias=[0.0], scale=1.0))
    load(proto)
    assert "'ImageScaler' is not registered" in caplog.text
    assert capfd.readouterr() == ("", "")  # the checker would write to stderr


def test_a_custom_domain_and_a_local_function_need_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    proto = make_rich()
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node.append(helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"))
    load(proto)
    assert not caplog.records


def test_an_unknown_operator_does_not_hide_what_is_wrong() -> None:
    proto = make_small()
    proto.graph.node.append(helper.make_node("PartitionedCall", ["nowhere"], ["p"]))
    with pytest.raises(ModelError, match="nothing makes"):
        load(proto)


def test_newer_versions_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    proto = make_small()
    proto.ir_version = onnx.IR_VERSION + 1
    load(proto)
    assert "is newer than the installed onnx knows" in caplog.text
    assert proto.ir_version == onnx.IR_VERSION + 1


def test_a_newer_opset_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    proto = make_small(opset=onnx.defs.onnx_opset_version() + 1)
    load(proto)
    assert f"opset {proto.opset_import[0].version} is newer than the installed onnx knows" in caplog.text


def test_weights_cost_the_check_next_to_nothing() -> None:
    proto = make_small()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 24, np.float32), "big"))
    start = time.perf_counter()
    load(proto)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    onnx.checker.check_model(proto)
    assert ours < time.perf_counter() - start


def test_external_data_in_memory_is_not_looked_for() -> None:
    proto = make_small()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="elsewhere")
    model = load(proto)
    with pytest.raises(ModelError, match="data of tensor 'w' lies in file 'elsewhere', but the model was given in"):
        model.array("w")
