"""Walks give what a run of the whole model with extra outputs gives, whatever may be kept in memory."""

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxprune.model import load
from onnxprune.runtime import ActivationReader, Session

WEIGHTS = [", ".join(str(i % 7 / 5) for i in range(32)), ", ".join(str(i % 5 / 3) for i in range(24))]
MODEL = f"""
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N, 4] x) => (float[N, 3] y)
<float[4, 8] w = {{{WEIGHTS[0]}}}, float[8, 3] v = {{{WEIGHTS[1]}}}>
{{
  a = MatMul(x, w)
  b = Relu(a)
  c = Sigmoid(a)
  d = Mul(b, c)
  e = Add(d, a)
  y = MatMul(e, v)
}}
"""


def expected(runs):
    proto = parser.parse_model(MODEL)
    names = [o for n in proto.graph.node for o in n.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    from onnxruntime import InferenceSession

    session = InferenceSession(proto.SerializeToString())
    return [dict(zip(names, session.run(names, run), strict=True)) for run in runs]


@pytest.mark.parametrize("memory", [0, 200, 1 << 20])
def test_slices_give_what_the_whole_model_gives(memory):
    rng = np.random.default_rng(0)
    runs = [{"x": rng.normal(size=(3, 4)).astype("f4")} for _ in range(4)]
    slices = [["x"], ["b"], ["b"], ["a", "e"], ["y"]]
    with ActivationReader(load(parser.parse_model(MODEL)), runs, [t for s in slices for t in s], memory=memory) as walk:
        found = [list(walk.read(names)) for names in slices]
    for names, values in zip(slices, found, strict=True):
        for value, run, whole in zip(values, runs, expected(runs), strict=True):
            for name in names:
                np.testing.assert_allclose(value[name], (whole | run)[name], rtol=1e-6)


def test_a_changed_weight_is_the_one_that_later_slices_run_with():
    runs = [{"x": np.ones((1, 4), np.float32)}]
    model = load(parser.parse_model(MODEL))
    with ActivationReader(model, runs, ["e", "y"]) as walk:
        list(walk.read(["e"]))
        tensor = next(t for t in model.proto.graph.initializer if t.name == "v")
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 3), np.float32), "v"))
        (last,) = walk.read(["y"])
    assert not last["y"].any()


@pytest.mark.parametrize("renewed", [True, False])
def test_what_changed_weights_make_is_made_again_on_demand(renewed):
    runs = [{"x": np.ones((2, 4), np.float32)}]
    model = load(parser.parse_model(MODEL))
    with ActivationReader(model, runs, ["x", "e", "e", *(["x"] if renewed else [])]) as walk:
        (before,) = [dict(values) for values in walk.read(["e"])]
        tensor = next(t for t in model.proto.graph.initializer if t.name == "w")
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 8), np.float32), "w"))
        if renewed:
            walk.renew(["e"], ["x"])
        (after,) = walk.read(["e"])
    assert before["e"].any()
    assert after["e"].any() != renewed


@pytest.mark.parametrize(
    ("made", "read"),
    [
        ("s = SplitToSequence <axis = 1> (a)", ("e = SequenceAt(s, one)", "g = SequenceAt(s, zero)")),
        (
            "r = SplitToSequence <axis = 1> (a)\n s = SequenceInsert(r, x)",
            ("e = SequenceAt(s, one)", "g = SequenceAt(s, zero)"),
        ),
        ("s = Cast <to = 16> (a)", ("e = Cast <to = 1> (s)", "g = Cast <to = 1> (s)")),
    ],
    ids=["sequence", "sequences", "bfloat16"],
)
def test_what_numpy_cannot_hold_is_made_anew(made, read):
    """Between two slices that read it there is a sequence, or numbers that numpy has no type for."""
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N, 4] x) => (float[N, M] y)
    <int64 zero = {{0}}, int64 one = {{1}}>
    {{
      a = Relu(x)
      {made}
      {read[0]}
      f = Sigmoid(e)
      {read[1]}
      y = Add(f, g)
    }}
    """
    model = load(parser.parse_model(text))
    runs = [{"x": np.random.default_rng(i).normal(size=(3, 4)).astype("f4")} for i in range(2)]
    with Session(model) as session:
        wanted = [session.run(feeds)[0] for feeds in runs]
    with ActivationReader(model, runs, ["a", "e", "f", "y"], memory=0) as walk:
        found = [[values[name] for values in walk.read([name])] for name in ("a", "e", "f", "y")]
    np.testing.assert_array_equal(found[-1], wanted)
