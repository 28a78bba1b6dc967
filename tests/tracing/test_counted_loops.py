"""Loops of a constant number of steps: what every step adds has a known shape, and channels go through it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import api
from tests.graphs.net import group_of, prune, run


def looped(count: str, condition: str, end: str, inputs: str = "") -> onnx.ModelProto:
    """Three steps of `s = Tanh(s + h)`, stacked; the channels of `h` are read behind the loop."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 4] x{inputs}) => (float[N, 2, 3] y) {{
          h = MatMul(x, w)
          {count}
          {condition}
          last, all = Loop (n, go, h) <
            body = body (int64 i, bool g, float[2, 8] s) => (bool e, float[2, 8] t, float[2, 8] o) {{
              {end} a = Add(s, h) t = Tanh(a) o = Identity(t) }}
          >
          y = MatMul(all, v)
        }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 8)), ("v", (8, 3))):
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return proto


COUNT = "n = Constant<value_int=3>()"
YES = "one = Constant<value_int=1>() go = Cast<to=9>(one)"
NO = "one = Constant<value_int=0>() go = Cast<to=9>(one)"
ON = "e = Identity(g)"
KNOWN = [
    looped(COUNT, YES, ON),
    looped(COUNT, YES, "k = Constant<value_int=1>() e = Cast<to=9>(k)"),
    looped("d = Shape(x) s = ReduceMin<keepdims=0>(d) k = Constant<value_int=1>() n = Add(s, k)", YES, ON),
]
OPEN = [
    looped("", YES, ON, ", int64 n"),
    looped(COUNT, "", ON, ", bool go"),
    looped(COUNT, NO, ON),
    looped(COUNT, YES, "m = ReduceMax<keepdims=0>(s) z = Constant<value_float=9.0>() e = Less(m, z)"),
    looped("n = Constant<value_int=4611686018427387904>()", YES, ON),
]


@pytest.mark.parametrize("proto", KNOWN)
def test_a_constant_number_of_steps(proto: onnx.ModelProto) -> None:
    outcome = prune(proto)
    group = group_of(outcome.groups, "w", 1)
    assert group is not None
    assert group.units == 8
    assert ("v", 0) in {(m.tensor, m.axis) for m in group.members}
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    zeroed = api.apply(proto, outcome.plan, zero=True, recovery="none")
    np.testing.assert_allclose(run(outcome.model)["y"], run(zeroed)["y"], rtol=0, atol=1e-5)
    assert run(outcome.model)["y"].shape == (3, 2, 3)


@pytest.mark.parametrize("proto", OPEN)
def test_another_number_of_steps(proto: onnx.ModelProto) -> None:
    """Only the axis of the steps has a length that the run alone knows."""
    group = group_of(api.trace(proto), "v", 0)
    assert group is not None
    assert group.units == 8
