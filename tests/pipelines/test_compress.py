"""What the function does not need goes, the outputs and the interface stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.model import file_size, load, save, to_proto
from onnxprune.pipelines.compress import compressed
from onnxprune.proof import Trials, equals
from onnxprune.rewriting.fold import folded
from onnxprune.tracing import trace
from tests.graphs.net import Net, array_of, run

MODELS = Path(__file__).parents[2] / "models"
RUNNING = sorted(p.name for p in MODELS.glob("*.onnx") if p.stem not in ("bfloat16_compute", "custom_op"))


def face(proto: onnx.ModelProto) -> list[bytes]:
    """Inputs, outputs, opsets and notes."""
    stored = {t.name for t in proto.graph.initializer} if proto.ir_version < 4 else set()
    parts = [v for v in proto.graph.input if v.name not in stored] + list(proto.graph.output)
    return [p.SerializeToString(deterministic=True) for p in (*parts, *proto.opset_import, *proto.metadata_props)]


@pytest.mark.parametrize("name", RUNNING)
def test_every_model_stays_equal_and_gets_no_larger(name, tmp_path):
    model = load(MODELS / name)
    done = compressed(model)
    assert done.verdict is not None and done.verdict.ok, done.verdict.problem
    assert not [stage for stage in done.stages if stage.left], done.stages
    save(done.model, tmp_path / "small.onnx")
    written = sum(p.stat().st_size for p in tmp_path.iterdir())
    assert written <= file_size(model) and done.nodes[1] <= done.nodes[0]
    assert face(to_proto(done.model)) == face(to_proto(model))
    proven(model, load(tmp_path / "small.onnx"))
    again = compressed(load(tmp_path / "small.onnx"), verify=False)
    assert again.nodes == (done.nodes[1],) * 2


def proven(model, small) -> None:
    verdict = equals(trace(model), small, Trials(as_written=True))
    assert verdict.ok, verdict.problem


def test_notes_opsets_and_defaults_of_callers_stay():
    net = Net()
    x = net.add("Identity", net.input(("batch", 6)))
    made = net.add("MatMul", x, net.weight(6, 8, name="w"))
    net.output(net.add("Mul", made, net.const(np.float32(2), "factor")), ["batch", 8])
    proto = net.proto()
    proto.graph.input.append(helper.make_tensor_value_info("factor", onnx.TensorProto.FLOAT, []))
    proto.metadata_props.add(key="a", value="b")
    proto.graph.doc_string = "what it is"
    small = onnxprune.compress(proto).model
    assert face(small) == face(proto) and small.graph.doc_string == "what it is"
    assert [n.op_type for n in small.graph.node] == ["MatMul", "Mul"] and array_of(small, "factor") == 2
    feeds = {"x": np.ones((3, 6), np.float32), "factor": np.full((), 5, np.float32)}
    for name, value in run(proto, feeds=feeds).items():
        np.testing.assert_allclose(run(small, feeds=feeds)[name], value, rtol=1e-6)


def test_weights_in_another_file_stay_there(tmp_path):
    model = load(MODELS / "external.onnx")
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    node = proto.graph.node[0]
    source, made = node.input[0], "in_front"
    node.input[0] = made
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([helper.make_node("Identity", [source], [made]), *rest])
    done = compressed(replace(model, proto=proto))
    assert done.verdict is not None and done.verdict.ok
    assert done.nodes[1] == done.nodes[0] - 1
    assert {t.name for t in done.model.externals} == {t.name for t in model.externals}
    save(done.model, tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx.data").is_file()


def test_a_stage_that_fails_its_proof_is_left_out(monkeypatch):
    model = load(MODELS / "preact_resnet.onnx")

    def wrong(given, sizes=None):
        made, done = folded(given, sizes)
        name = next(t.name for t in made.proto.graph.initializer if len(t.dims) == 4)
        proto = onnx.ModelProto()
        proto.CopyFrom(to_proto(made))
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, name))
        return load(proto), done

    monkeypatch.setattr("onnxprune.pipelines.compress.folded", wrong)
    done = compressed(model)
    assert done.verdict is not None and done.verdict.ok and done.folds == ()
    (left,) = [stage for stage in done.stages if stage.left]
    assert "differs by" in left.left
