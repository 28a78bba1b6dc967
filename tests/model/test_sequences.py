"""Sequences of constant structure: cut as the tensors that they hold, and as they were where nothing is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import api
from onnxprune.model import load
from onnxprune.model.flatten import flattened, unflatten
from tests.graphs.net import Net, group_of, ops_of, prune, run, with_arrays

LISTS = {
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SequenceErase",
    "SequenceAt",
    "SequenceLength",
    "SplitToSequence",
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
}
Build = Callable[[Net, str], str]


def at(net: Net, sequence: str, place: int, dtype: Any = np.int64) -> str:
    return str(net.add("SequenceAt", sequence, net.const(place, dtype=dtype)))


def parts(net: Net, x: str, sizes: Any, **attrs: Any) -> str:
    given = [] if sizes is None else [net.const(sizes, dtype=np.int64)]
    return str(net.add("SplitToSequence", x, *given, **attrs))


def sized(net: Net, x: str) -> str:
    sequence = parts(net, x, [4, 4], axis=2)
    return str(net.add("Add", at(net, sequence, 0), at(net, sequence, -1)))


def chunked(net: Net, x: str) -> str:
    sequence = parts(net, x, 4, axis=-1)
    return str(net.add("Add", at(net, sequence, 1, np.int32), at(net, sequence, 0)))


def halved(net: Net, x: str) -> str:
    """Half of what an axis has, by its own size, and places that are computed from constants."""
    size = net.add("Gather", net.add("Shape", x), net.ints(2))
    half = net.add("Div", size, net.ints(2))
    sequence = str(net.add("SplitToSequence", x, net.add("Concat", half, half, axis=0), axis=2))
    one = net.const(1, dtype=np.int64)
    first = net.add("SequenceAt", sequence, net.add("Sub", one, one))
    return str(net.add("Add", first, net.add("SequenceAt", sequence, net.add("Neg", one))))


def unbound(net: Net, x: str) -> str:
    """One by one along another axis, whose axis goes; the order is another afterwards."""
    sequence = parts(net, x, None, axis=1, keepdims=0)
    picked = [at(net, sequence, place) for place in (4, 0, -2)]
    return str(net.add("ConcatFromSequence", net.add("SequenceConstruct", *picked), axis=1, new_axis=1))


def bound(net: Net, x: str) -> str:
    sequence = parts(net, x, None, axis=1)
    return str(net.add("ConcatFromSequence", sequence, axis=1))


def gathered(net: Net, x: str) -> str:
    sequence = net.add("SequenceInsert", net.add("SequenceEmpty"), x)
    sequence = net.add("SequenceInsert", sequence, net.add("Relu", x), net.const(0, dtype=np.int64))
    sequence = net.add("SequenceInsert", sequence, net.add("Tanh", x))
    sequence = net.add("SequenceErase", sequence, net.const(1, dtype=np.int64))
    sequence = net.add("SequenceErase", net.add("SequenceInsert", sequence, x))
    return str(net.add("ConcatFromSequence", sequence, axis=2))


def counted(net: Net, x: str) -> str:
    sequence = parts(net, x, [2, 3], axis=1)
    length = net.cast(net.add("SequenceLength", sequence), TensorProto.FLOAT)
    return str(net.add("Mul", at(net, sequence, 1), length))


def optional(net: Net, x: str) -> str:
    held = net.add("Identity", net.add("Optional", x))
    there = net.cast(net.add("OptionalHasElement", held), TensorProto.FLOAT)
    return str(net.add("Mul", net.add("OptionalGetElement", held), there))


def optional_list(net: Net, x: str) -> str:
    held = net.add("Optional", net.add("SequenceConstruct", x, net.add("Relu", x)))
    return at(net, net.add("Identity", net.add("OptionalGetElement", held)), 1)


def mixed(net: Net, x: str) -> str:
    """The last part is smaller, and both lists are read by one."""
    sequence = parts(net, x, 3, axis=1)
    other = net.add("SequenceConstruct", at(net, sequence, 1), net.add("Relu", x))
    return str(net.add("ConcatFromSequence", net.add("SequenceInsert", other, at(net, sequence, 0)), axis=1))


CASES: list[tuple[Build, int, bool]] = [
    (sized, 4, True),
    (chunked, 4, True),
    (halved, 4, True),
    (unbound, 8, False),
    (bound, 8, False),
    (gathered, 8, False),
    (counted, 8, False),
    (optional, 8, False),
    (optional_list, 8, False),
    (mixed, 8, False),
]


def net_of(build: Build, version: int) -> onnx.ModelProto:
    net = Net(version)
    made = build(net, net.make((2, 5, 8), 2))
    net.read(made, 2)
    return net.proto()


@pytest.mark.parametrize("version", [11, 13, 17, 22])
@pytest.mark.parametrize(("build", "units", "changes"), CASES)
def test_cut(build: Build, units: int, changes: bool, version: int) -> None:
    if "optional" in build.__name__ and version < 16:
        pytest.skip("no optionals yet")
    proto = net_of(build, version)
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    group = group_of(outcome.groups, "w_in", 1)
    assert group is not None
    assert group.units == units
    assert {(m.tensor, m.axis) for m in group.members} == {("w_in", 1), ("w_out", 0)}
    kept = [op for op in ops_of(outcome.model) if op in LISTS]
    before = [op for op in ops_of(proto) if op in LISTS]
    assert kept == ([] if changes else before)
    check_by_zeroing(proto, outcome)


def check_by_zeroing(proto: onnx.ModelProto, outcome: api.Outcome) -> None:
    """The second judge: the original with zeros for what was cut."""
    zeroed = api.apply(proto, outcome.plan, zero=True, recovery="none")
    expected, found, plain = run(zeroed), run(outcome.model), run(proto)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * float(np.abs(value).max()))
        assert np.abs(plain[name] - value).max() > 1e-3
    assert with_arrays(proto, {}) == proto


@pytest.mark.parametrize("build", [case[0] for case in CASES])
def test_what_is_not_cut_comes_back_to_the_byte(build: Build) -> None:
    proto = net_of(build, 17)
    flat = flattened(load(proto))
    assert not LISTS.intersection(ops_of(flat))
    back = onnx.ModelProto()
    back.CopyFrom(flat.proto)
    unflatten(back.graph)
    assert back.SerializeToString() == proto.SerializeToString()


def test_one_list_is_cut_and_another_is_not() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    net.read(sized(net, x), 2)
    net.output(sized(net, net.input([2, 5, 8], name="other")), [2, 5, 4], TensorProto.FLOAT)
    outcome = prune(net.proto())
    assert sorted(op for op in ops_of(outcome.model) if op in LISTS) == ["SequenceAt"] * 2 + ["SplitToSequence"]
    assert outcome.verdict is not None
    assert outcome.verdict.ok


# --- structures that are not constant ------------------------------------------------------------------------


def computed_place(net: Net, x: str) -> str:
    place = net.add("Cast", net.add("ReduceMax", net.input([1], name="n"), keepdims=0), to=TensorProto.INT64)
    return str(
        net.add("SequenceAt", parts(net, x, [4, 4], axis=2), net.add("Mul", place, net.const(0, dtype=np.int64)))
    )


def computed_sizes(net: Net, x: str) -> str:
    sizes = net.add("Add", net.ints(4, 4), net.input([1], name="n", dtype=TensorProto.INT64))
    sizes = net.add("Clip", sizes, net.const(4, dtype=np.int64), net.const(4, dtype=np.int64))
    return at(net, str(net.add("SplitToSequence", x, sizes, axis=2)), 0)


def out_of_range(net: Net, x: str) -> str:
    return at(net, parts(net, x, [4, 4], axis=2), 5)


def dynamic_length(net: Net, x: str) -> str:
    longer = net.add("Concat", x, net.input(["n", 5, 8], name="other"), axis=0)
    return at(net, parts(net, longer, 1, axis=0), 0)


@pytest.mark.parametrize("build", [computed_place, computed_sizes, out_of_range, dynamic_length])
def test_other_structures_stay(build: Build) -> None:
    net = Net()
    y = build(net, net.make((2, 5, 8), 2))
    net.output(y, ["a", "b", "c"], TensorProto.FLOAT)
    proto = net.proto()
    assert flattened(load(proto)).proto is not None
    groups = api.trace(proto)
    assert group_of(groups, "w_in", 1) is None
    assert LISTS.intersection(ops_of(groups.tracing.model))


def test_a_list_that_is_an_output_stays() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    sequence = parts(net, x, [4, 4], axis=2)
    net.output(at(net, sequence, 0), [2, 5, 4], TensorProto.FLOAT)
    proto = net.proto()
    proto.graph.output.append(helper.make_tensor_sequence_value_info(sequence, TensorProto.FLOAT, None))
    assert group_of(api.trace(proto), "w_in", 1) is None


def test_lists_in_a_branch() -> None:
    """Made and read in one body, or made outside and read in a body, both ways."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 4] x, bool c) => (float[2, 3] y) {{
          h = MatMul(x, w_in)
          four = Constant<value_ints=[4, 4]>()
          {outside}
          m = If (c) <
            then_branch = then () => (float[2, 4] t) {{
              {inside} zero = Constant<value_int=0>() t = SequenceAt(s, zero) }},
            else_branch = other () => (float[2, 4] e) {{
              start = Constant<value_ints=[4]>() end = Constant<value_ints=[8]>() axis = Constant<value_ints=[1]>()
              e = Slice(h, start, end, axis) }}
          >
          y = MatMul(m, w_out)
        }}"""
    split = "s = SplitToSequence<axis=1>(h, four)"
    for outside, inside in (("", split), (split, "")):
        proto = onnx.parser.parse_model(text.format(outside=outside, inside=inside))
        for name, shape in (("w_in", (4, 8)), ("w_out", (4, 3))):
            value = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        flat = flattened(load(proto))
        assert not LISTS.intersection(ops_of(flat))
        back = onnx.ModelProto()
        back.CopyFrom(flat.proto)
        unflatten(back.graph)
        assert back.SerializeToString() == proto.SerializeToString()
        outcome = prune(proto)
        assert [(g.units, g.exact) for g in outcome.groups.groups] == [(4, True)]
        assert outcome.verdict is not None
        assert outcome.verdict.ok, outcome.verdict.problem


def test_long_lists_stay() -> None:
    net = Net()
    x = net.input([5000, 3])
    net.output(at(net, parts(net, x, 1, axis=0), 7), [1, 3], TensorProto.FLOAT)
    assert "SplitToSequence" in ops_of(flattened(load(net.proto())))
