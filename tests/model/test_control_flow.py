"""If and Loop: labels go through bodies, and the bodies come back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import api
from onnxprune.cost import counts
from onnxprune.model import control_flow, load, protos
from onnxprune.model import flatten as flat_graph
from onnxprune.rewriting import Plan
from onnxprune.runtime import Session
from tests.graphs import shared
from tests.graphs.net import feeds_of, group_of, groups_of, prune, reasons_for, run


def weight(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng([len(name), *shape, *name.encode()])
    value = rng.standard_normal(shape) / np.sqrt(shape[0])
    return numpy_helper.from_array(value.astype(np.float32), name)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(text: str, *weights: onnx.TensorProto) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nnet {text}')
    proto.graph.initializer.extend(weights)
    return proto


def into(proto: onnx.ModelProto, node: str, name: str, *weights: onnx.TensorProto) -> onnx.ModelProto:
    """Put weights into a body."""
    owner = next(n for g in protos.graphs(proto.graph) for n in g.node if node in n.output)
    next(a for a in owner.attribute if a.name == name).g.initializer.extend(weights)
    return proto


def two_branches() -> onnx.ModelProto:
    """Both branches read `h`, have weights of their own under the same names, and share one with the main graph."""
    proto = model(
        """(float[N, 4] x, bool c) => (float[N, 3] y, float[N, 6] z) {
          h = MatMul(x, w1)
          r = Relu(h)
          m = If (c) <
            then_branch = then () => (float[N, 10] t) { a = MatMul(r, v)  b = Relu(a)  t = MatMul(b, u) },
            else_branch = other () => (float[N, 10] e) { a = MatMul(r, v)  b = Tanh(a)  e = MatMul(b, u) }
          >
          y = MatMul(m, w2)
          z = MatMul(r, shared)
        }""",
        *(weight("w1", 4, 8), weight("w2", 10, 3), weight("shared", 8, 6)),
    )
    into(proto, "m", "then_branch", weight("v", 8, 6), weight("u", 6, 10))
    return into(proto, "m", "else_branch", weight("v", 8, 12), weight("u", 12, 10))


def recurrent(trips: str = "five", init: str = "zeros") -> onnx.ModelProto:
    """h = tanh(x W + h U), five times; every step gives h V."""
    return model(
        f"""(float[3, 4] x, int64 trip, float[3, 7] grow) => (float[3, 2] y, float[L, 3, 2] steps) {{
          yes = Constant <value = bool {{1}}> ()
          last, all = Loop ({trips}, yes, {init}) <body = body
            (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next, float[3, 5] step) {{
              on = Identity(go)
              p = MatMul(x, w)  q = MatMul(h, u)  s = Add(p, q)  next = Tanh(s)  step = MatMul(next, v)
            }}>
          y = MatMul(last, out)
          steps = MatMul(all, read)
        }}""",
        *(numpy_helper.from_array(np.array(5, np.int64), "five"), weight("out", 6, 2), weight("w", 4, 6)),
        *(weight("u", 6, 6), weight("v", 6, 5), weight("read", 5, 2)),
        numpy_helper.from_array(np.zeros((3, 6), np.float32), "zeros"),
    )


def proven(outcome: api.Outcome) -> None:
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    onnx.checker.check_model(outcome.model.proto, full_check=True)


def stored(proto: onnx.ModelProto) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of all weights by name, main graph first."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for graph in protos.graphs(proto.graph):
        for tensor in graph.initializer:
            found.setdefault(tensor.name, []).append(tuple(tensor.dims))
    return found


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        ([(2, 4, 8), (2, 4, 8)], [2, 4, 8]),
        ([(2, 4, 8), (2, 5, 8)], [2, None, 8]),
        ([(0, 4, 1), (2, 4, 8)], [2, 4, 8]),
        ([(0, 4), (0, 5)], [0, None]),
        ([(), ()], []),
        ([(2, 4), (2, 4, 8)], None),
        ([(0,), (2, 4)], None),
        ([(2, 4), None], None),
    ],
)
def test_sizes_that_branches_have_in_common(
    shapes: list[tuple[int, ...] | None], sizes: list[int | None] | None
) -> None:
    """A tensor without elements stands for another one of its rank."""
    assert control_flow.common(shapes) == control_flow.common(shapes[::-1]) == sizes


def test_channels_go_through_branches() -> None:
    outcome = prune(two_branches())
    proven(outcome)
    assert stored(outcome.model.proto) == {
        "w1": [(4, 4)], "w2": [(5, 3)], "shared": [(4, 6)], "v": [(4, 3), (4, 6)], "u": [(3, 5), (6, 5)],
    }  # fmt: skip
    branches = next(n for n in outcome.model.proto.graph.node if n.op_type == "If")
    shapes = [[d.dim_value for d in b.output[0].type.tensor_type.shape.dim] for b in protos.bodies(branches)]
    assert shapes == [[0, 5], [0, 5]]
    group = group_of(outcome.groups, "w2", 0)
    assert group is not None
    assert {(m.tensor, m.axis) for m in group.members} >= {("w2", 0), ("u", 1)}


@pytest.mark.parametrize("branch", ["then_branch", "else_branch"])
def test_the_proof_takes_every_branch(branch: str) -> None:
    """Whatever the condition is by chance."""
    outcome = prune(two_branches())
    broken = onnx.ModelProto()
    broken.CopyFrom(outcome.model.proto)
    node = next(n for n in broken.graph.node if n.op_type == "If")
    body = next(a.g for a in node.attribute if a.name == branch)
    value = numpy_helper.to_array(body.initializer[0])
    body.initializer[0].CopyFrom(numpy_helper.from_array(value * 1.01, body.initializer[0].name))
    verdict = onnxprune.verify(two_branches(), broken, outcome.plan)
    assert not verdict.ok
    assert "differs from the masked original" in verdict.problem


def test_both_branches_equal_zeroed_weights() -> None:
    """Without the masked reference: zeros in the weights at what went."""
    proto = two_branches()
    outcome = prune(proto)
    zeroed = api.execute(load(proto), outcome.plan, zero=True).model
    for condition in (True, False):
        feeds = feeds_of(proto) | {"c": np.array(condition)}
        wanted, found = (run(m, feeds=feeds) for m in (zeroed, outcome.model))
        plain = run(proto, feeds=feeds)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)
            assert np.abs(plain[name] - value).max() > 1e-3


def test_the_plan_names_weights_of_bodies() -> None:
    outcome = prune(two_branches())
    done = api.execute(load(two_branches()), Plan.from_json(outcome.plan.to_json()), verify=True)
    assert done.verdict is not None
    assert done.verdict.ok
    assert done.model.proto == outcome.model.proto


def test_costs_count_bodies() -> None:
    counted = counts.of(load(two_branches()))
    assert counted.params == 4 * 8 + 10 * 3 + 8 * 6 + 8 * 6 + 6 * 10 + 8 * 12 + 12 * 10
    assert sum(layer.weight.startswith("v") for layer in counted.layers) == 2


def a_branch_by_size() -> onnx.ModelProto:
    """Which of two products runs depends on how long the sequence is."""
    return model(
        """(float[batch, seq, 4] x) => (float[batch, seq, 6] y) {
          h = MatMul(x, w1)
          n = Shape <start = 1, end = 2> (x)
          c = Less(n, many)
          y = If (c) <
            then_branch = short () => (float[batch, seq, 6] a) { a = MatMul(h, w2) },
            else_branch = long () => (float[batch, seq, 6] b) { b = MatMul(h, w3) }
          >
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 6), weight("w3", 8, 6), ints("many", 8)),
    )


@pytest.mark.parametrize(("seq", "ran"), [(4, "w2"), (16, "w3")])
def test_a_branch_that_sizes_rule_out_costs_nothing(seq: int, ran: str) -> None:
    """The cost is that of one run at the numbers that stand for symbolic dims, whoever named these."""
    source = load(a_branch_by_size())
    found = counts.of(source, {"seq": seq})
    assert {layer.weight for layer in found.layers if layer.macs} == {"w1", ran}
    assert found.macs == seq * (4 * 8 + 8 * 6)
    free = onnxprune.trace(a_branch_by_size()).tracing
    fixed = onnxprune.trace(a_branch_by_size(), sizes=free.static.sizes).tracing
    assert counts.of_trace(free, source).macs == counts.of_trace(fixed, source).macs == counts.of(source).macs


@pytest.mark.parametrize("name", ["silero_vad_op15", "silero_vad_legacy"])
def test_branches_of_a_trained_model_cost_the_same_whoever_names_the_sizes(name: str) -> None:
    """Taking a batch of one here, and of two in a trace, led to other lengths, and so to other branches."""
    found = shared.entries(f"models/{name}")
    if not found:
        pytest.skip(shared.ABSENT)
    source = load(str(found[0].path))
    sizes = onnxprune.trace(source.proto).tracing.static.sizes
    free, fixed = (onnxprune.trace(source.proto, sizes=given).tracing for given in (None, sizes))
    assert counts.of_trace(free, source).macs == counts.of_trace(fixed, source).macs == counts.of(source).macs


def other_shapes(condition: str, dims: str = "2, 1, 8") -> onnx.ModelProto:
    """An If as exporters write `squeeze`: the branches give tensors of other ranks."""
    return model(
        f"""(float[{dims.replace("8", "4")}] x, bool c) => (float[R] y) {{
          h = MatMul(x, w1)
          s = Shape(h)  rank = Shape(s)  three = Constant <value = int64[1] {{3}}> ()
          equal = Equal(rank, three)
          one = Constant <value_ints = [1]> ()
          size = Gather <axis = 0>(s, one)
          short = Equal(size, one)
          m = If ({condition}) <
            then_branch = then () => (float[M, K] t) {{ ax = Constant <value_ints = [1]> ()  t = Squeeze(h, ax) }},
            else_branch = other () => (float[M, L, K] e) {{ e = Identity(h) }}
          >
          k = MatMul(m, w2)  flat = Constant <value_ints = [-1]> ()  y = Reshape(k, flat)
        }}""",
        *(weight("w1", 4, 8), weight("w2", 8, 3)),
    )


@pytest.mark.parametrize("name", ["silero_vad_op15", "silero_vad_legacy"])
def test_the_other_branches_of_a_trained_model_are_run(name: str, tmp_path: Path) -> None:
    """In a process of its own: with a constant condition, the runtime ends in a segmentation fault."""
    found = shared.entries(f"models/{name}")
    if not found:
        pytest.skip(shared.ABSENT)
    command = [sys.executable, "-m", "onnxprune", "prune", str(found[0].path), "-o", str(tmp_path / "small.onnx")]
    done = subprocess.run([*command, "--ratio", "0.5", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["proof"]["ok"]


def test_a_branch_that_is_never_taken_says_nothing() -> None:
    proto = other_shapes("equal")
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto) == {"w1": [(4, 4)], "w2": [(4, 3)]}


@pytest.mark.parametrize(("condition", "dims"), [("c", "2, 1, 8"), ("short", "2, N, 8")])
def test_branches_of_other_shapes_are_a_barrier(condition: str, dims: str) -> None:
    """Also where the condition is the same at the sizes that were tried, but not at all."""
    groups = api.trace(other_shapes(condition, dims))
    assert group_of(groups, "w1", 1) is None
    reasons = reasons_for(groups, "w1", 1)
    assert any("other shapes" in r or "Squeeze" in r or "shape" in r for r in reasons), reasons


def test_nested_branches_and_weights_used_in_several_scopes() -> None:
    proto = model(
        """(float[N, 4] x, bool c, bool d) => (float[N, 3] y) {
          h = MatMul(x, w1)
          m = If (c) <
            then_branch = then () => (float[N, 8] t) {
              t = If (d) <
                then_branch = a () => (float[N, 8] ta) { ta = Mul(h, scale) },
                else_branch = b () => (float[N, 8] tb) { tb = MatMul(h, square) }
              >
            },
            else_branch = other () => (float[N, 8] e) { e = Add(h, scale) }
          >
          k = Add(m, scale)
          y = MatMul(k, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3), weight("square", 8, 8), weight("scale", 8)),
    )
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto) == {"w1": [(4, 4)], "w2": [(4, 3)], "square": [(4, 4)], "scale": [(4,)]}
    assert (
        len(control_flow.open_branches(outcome.groups.tracing.model.proto.graph, outcome.groups.tracing.branch_taken))
        == 4
    )


def test_norms_inside_of_a_branch_are_masked_there() -> None:
    proto = model(
        """(float[N, 4] x, bool c) => (float[N, 3] y) {
          h = MatMul(x, w1)
          m = If (c) <
            then_branch = then () => (float[N, 8] t) { t = LayerNormalization <axis = -1>(h, scale) },
            else_branch = other () => (float[N, 8] e) { e = Relu(h) }
          >
          y = MatMul(m, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3), weight("scale", 8)),
    )
    outcome = prune(proto)
    proven(outcome)
    assert not outcome.plan.steps[0].exact
    assert stored(outcome.model.proto)["w1"] == [(4, 4)]


def test_sizes_are_corrected_inside_of_a_branch() -> None:
    proto = model(
        """(float[2, 3, 4] x, bool c) => (float[6, 3] y) {
          h = MatMul(x, w1)
          m = If (c) <
            then_branch = then () => (float[6, 8] t) { t = Reshape(h, to) },
            else_branch = other () => (float[6, 8] e) {
              s = Shape <start = 2>(h)  n = Constant <value_ints = [6]> ()  full = Concat <axis = 0>(n, s)
              r = Reshape(h, full)  e = Neg(r)
            }
          >
          y = MatMul(m, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3)),
    )
    into(proto, "m", "then_branch", ints("to", 6, 8))
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto)["w1"] == [(4, 4)]


def test_state_is_tied_from_step_to_step() -> None:
    outcome = prune(recurrent())
    proven(outcome)
    sizes = stored(outcome.model.proto)
    assert (sizes["u"], sizes["w"], sizes["out"]) == ([(3, 3)], [(4, 3)], [(3, 2)])
    assert (sizes["v"], sizes["zeros"]) == ([(3, 3)], [(3, 3)])


def test_what_steps_give_is_kept_behind_a_new_axis() -> None:
    proto = recurrent()
    proto.graph.value_info.append(helper.make_tensor_value_info("all", TensorProto.FLOAT, [5, 3, 5]))
    outcome = prune(proto)
    proven(outcome)
    sizes = stored(outcome.model.proto)
    assert (sizes["v"], sizes["read"]) == ([(3, 3)], [(3, 2)])


def test_an_unknown_number_of_steps_keeps_the_channels_of_what_they_give() -> None:
    groups = api.trace(recurrent(trips="trip"))
    assert group_of(groups, "v", 1) is not None
    assert group_of(groups, "u", 1) is not None


def test_the_proof_goes_around() -> None:
    """A count that is an input is fed with more than one step: what goes wrong from the second on is found."""
    outcome = prune(recurrent(trips="trip"))
    proven(outcome)
    broken = onnx.ModelProto()
    broken.CopyFrom(outcome.model.proto)
    tensor = next(t for t in broken.graph.initializer if t.name == "u")  # what meets the state, zeros at first
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, "u"))
    assert not onnxprune.verify(recurrent(trips="trip"), broken, outcome.plan).ok


def test_state_that_grows_is_a_barrier() -> None:
    proto = model(
        """(float[1, 4] x, int64 n) => (float[K, 2] y) {
          yes = Constant <value = bool {1}> ()
          h = MatMul(x, w)
          last = Loop (n, yes, h) <body = body
            (int64 i, bool go, float[R, 6] s) => (bool on, float[R, 6] t) {
              on = Identity(go)  t = Concat <axis = 0>(s, h)
            }
          >
          y = MatMul(last, out)
        }""",
        *(weight("w", 4, 6), weight("out", 6, 2)),
    )
    groups = api.trace(proto)
    assert group_of(groups, "w", 1) is None
    assert "changes its shape from step to step" in reasons_for(groups, "w", 1)


def test_a_group_inside_of_a_body() -> None:
    """The state itself is fixed by a graph input; what is in between is not."""
    proto = model(
        """(float[2, 4] x, int64 n) => (float[2, 4] y) {
          yes = Constant <value = bool {1}> ()
          y = Loop (n, yes, x) <body = body
            (int64 i, bool go, float[2, 4] s) => (bool on, float[2, 4] t) {
              on = Identity(go)  a = MatMul(s, up)  b = Relu(a)  t = MatMul(b, down)
            }>
        }""",
    )
    into(proto, "y", "body", weight("up", 4, 10), weight("down", 10, 4))
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto) == {"up": [(4, 5)], "down": [(5, 4)]}
    feeds = {**feeds_of(proto), "n": np.array(3)}
    zeroed = api.execute(load(proto), outcome.plan, zero=True).model
    np.testing.assert_allclose(run(outcome.model, feeds=feeds)["y"], run(zeroed, feeds=feeds)["y"], atol=1e-5)


def scanned(axes: str = "", shape: str = "5, 3, 7", out: str = "5, 3, 2") -> onnx.ModelProto:
    """Along the steps of a projected input: h = tanh(x W + h U); every step gives h V."""
    return model(
        f"""(float[{shape}] x) => (float[3, 2] y, float[{out}] steps) {{
          p = MatMul(x, w0)
          last, all = Scan <num_scan_inputs = 1{axes}, body = body
            (float[3, 6] h, float[3, 8] part) => (float[3, 6] next, float[3, 5] step) {{
              a = MatMul(part, w)  b = MatMul(h, u)  s = Add(a, b)  next = Tanh(s)  step = MatMul(next, v)
            }}> (zeros, p)
          y = MatMul(last, out)
          steps = MatMul(all, read)
        }}""",
        *(weight("w0", 7, 8), weight("w", 8, 6), weight("u", 6, 6), weight("v", 6, 5)),
        *(weight("out", 6, 2), weight("read", 5, 2)),
        numpy_helper.from_array(np.zeros((3, 6), np.float32), "zeros"),
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"axes": ", scan_input_axes = [1], scan_output_axes = [-2]", "shape": "3, 5, 7", "out": "3, 5, 2"},
        {"axes": ", scan_input_axes = [-3], scan_input_directions = [1]"},
    ],
)
def test_channels_go_through_the_steps_of_a_scan(given: dict[str, str]) -> None:
    proto = scanned(**given)
    flat = flat_graph.flattened(load(proto))
    again = onnx.ModelProto()
    again.CopyFrom(flat.proto)
    flat_graph.unflatten(again.graph)
    assert again == proto
    outcome = prune(proto)
    proven(outcome)
    sizes = {name: shapes[0] for name, shapes in stored(outcome.model.proto).items()}
    halves = {"w0": (7, 4), "w": (4, 3), "u": (3, 3), "v": (3, 3), "out": (3, 2), "read": (3, 2), "zeros": (3, 3)}
    assert sizes == halves


def test_the_axis_of_the_steps_stays() -> None:
    """Channels in the place of steps: a scan over them sees each one alone."""
    proto = model(
        """(float[3, 4] x) => (float[8, 3] y) {
          h = MatMul(x, w)
          y = Scan <num_scan_inputs = 1, scan_input_axes = [1], body = body
            (float[3] part) => (float[3] step) { step = Tanh(part) }> (h)
        }""",
        weight("w", 4, 8),
    )
    groups = api.trace(proto)
    assert group_of(groups, "w", 1) is None
    assert "the steps of a loop" in reasons_for(groups, "w", 1)


def test_repair_reaches_into_bodies() -> None:
    runs = [feeds_of(two_branches(), seed) for seed in range(4)]
    outcome = api.run(load(two_branches()), api.Options(), data=runs)
    assert outcome.recovery is not None
    assert len(outcome.recovery.fits) == 4
    with Session(outcome.model) as session:
        session.run(runs[0])


def test_sequences_that_are_read_at_a_computed_place_are_a_barrier_with_a_reason() -> None:
    proto = model(
        """(float[2, 4] x, int64 z) => (float[2, 3] y) {
          h = MatMul(x, w1)  s = SequenceConstruct(h, h)
          g = SequenceAt(s, z)  y = MatMul(g, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3)),
    )
    groups = api.trace(proto)
    assert groups_of(groups, "w1", 1) == []
    assert any("a sequence or optional may hold tensors of any size" in r for r in reasons_for(groups, "w1", 1))


def known_condition(taken: str = "then_branch", other: str = "e = MatMul(r, w3)") -> onnx.ModelProto:
    """Both branches read the same tensor; the condition is stored."""
    proto = model(
        f"""(float[N, 4] x) => (float[N, 3] y) {{
          h = MatMul(x, w1)
          r = Relu(h)
          y = If (c) <
            then_branch = first () => (float[N, 3] t) {{ t = MatMul(r, w2) }},
            else_branch = second () => (float[N, 3] e) {{ {other} }}
          >
        }}""",
        *(weight("w1", 4, 8), weight("w2", 8, 3), weight("w3", 8, 3)),
        numpy_helper.from_array(np.array(True), "c"),
    )
    if taken == "else_branch":
        for attribute in proto.graph.node[2].attribute:
            attribute.name = "else_branch" if attribute.name == "then_branch" else "then_branch"
        proto.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array(False), "c"))
    return proto


@pytest.mark.parametrize("taken", ["then_branch", "else_branch"])
@pytest.mark.parametrize("other", ["e = MatMul(r, w3)", "p = Tanh(r)  e = MatMul(p, w2)", "e = Gemm(h, w3)"])
def test_a_branch_that_is_never_taken_may_read_what_shrinks(taken: str, other: str) -> None:
    outcome = prune(known_condition(taken, other))
    proven(outcome)
    assert stored(outcome.model.proto) == {"w1": [(4, 4)], "w2": [(4, 3)]}
    assert [n.op_type for n in outcome.model.proto.graph.node] == ["MatMul", "Relu", "MatMul", "Identity"]


def test_a_branch_that_is_never_taken_stays_where_nothing_in_it_shrinks() -> None:
    proto = known_condition(other="e = MatMul(x, w4)")
    proto.graph.initializer.append(weight("w4", 4, 3))
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto)["w4"] == [(4, 3)]
    assert outcome.model.proto.graph.node[2].op_type == "If"


def test_a_branch_that_hands_on_what_shrinks_is_never_taken() -> None:
    proto = model(
        """(float[N, 4] x) => (float[N, 3] y) {
          h = MatMul(x, w1)
          r = Relu(h)
          m = If (c) <
            then_branch = first () => (float[N, 8] t) { t = Tanh(r) },
            else_branch = second () => (float[N, 8] e) { e = Identity(r) }
          >
          y = MatMul(m, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3), numpy_helper.from_array(np.array(True), "c")),
    )
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto) == {"w1": [(4, 4)], "w2": [(4, 3)]}


@pytest.mark.parametrize("steps", [1, 3])
def test_a_branch_that_is_never_taken_in_a_loop(steps: int) -> None:
    """It reads the state; the branch beside it has a weight of its own, and an If that depends on the input."""
    proto = model(
        """(float[3, 4] x, bool open) => (float[3, 2] y) {
          yes = Constant <value = bool {1}> ()
          h = MatMul(x, w)
          last = Loop (five, yes, h) <body = body
            (int64 i, bool go, float[3, 6] s) => (bool on, float[3, 6] next) {
              on = Identity(go)
              next = If (c) <
                then_branch = first () => (float[3, 6] t) {
                  k = If (open) <
                    then_branch = inner () => (float[3, 6] a) { a = MatMul(s, u) },
                    else_branch = outer () => (float[3, 6] b) { b = Tanh(s) }
                  >
                  t = Sigmoid(k)
                },
                else_branch = second () => (float[3, 6] e) { e = MatMul(s, v) }
              >
            }>
          y = MatMul(last, out)
        }""",
        *(numpy_helper.from_array(np.array(steps, np.int64), "five"), numpy_helper.from_array(np.array(True), "c")),
        *(weight("w", 4, 6), weight("u", 6, 6), weight("v", 6, 6), weight("out", 6, 2)),
    )
    outcome = prune(proto)
    proven(outcome)
    assert stored(outcome.model.proto)["u"] == [(3, 3)]
    assert "v" not in stored(outcome.model.proto)


def test_notes_on_constants_that_are_duplicated_per_use_follow() -> None:
    """A Constant of ones in a body and in the main graph, a filled one and a sparse one, each noted with its size."""
    proto = model(
        """(float[N, 4] x, bool c) => (float[N, 3] y) {
          one = Constant <value = float[8] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}> ()
          filled = ConstantOfShape <value = float[1] {2.0}> (eight)
          h = MatMul(x, w1)  a = Mul(h, one)  a2 = Add(a, filled)
          m = If (c) <
            then_branch = first () => (float[N, 8] t) {
              two = Constant <value = float[8] {2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0}> ()
              i = Mul(a2, two)  j = MatMul(i, u)  t = Mul(j, two)
            },
            else_branch = second () => (float[N, 8] e) { f = MatMul(a2, v)  e = Mul(f, one) }
          >
          n = Add(m, filled)
          y = MatMul(n, w2)
        }""",
        *(weight("w1", 4, 8), weight("u", 8, 8), weight("v", 8, 8), weight("w2", 8, 3), ints("eight", 8)),
    )
    noted = onnx.shape_inference.infer_shapes(proto)
    known = {info.name for graph in protos.graphs(noted.graph) for info in graph.value_info}
    assert {"one", "filled", "two"} <= known
    outcome = prune(noted, criterion="random")
    proven(outcome)
    assert stored(outcome.model.proto)["w1"] == [(4, 4)]
    again = onnx.shape_inference.infer_shapes(outcome.model.proto, strict_mode=True)
    assert again.graph.output == outcome.model.proto.graph.output


def test_layers_without_a_first_output_are_told_apart() -> None:
    """Only the recurrence in the branch that is never taken is idle, although both leave their first output out."""
    proto = model(
        """(float[5, N, 4] x, bool c) => (float[1, N, 3] z) {
          , h = RNN <hidden_size = 3> (x, w, r)
          z = If (c) <
            then_branch = then () => (float[1, N, 3] t) { t = Relu(h) },
            else_branch = other () => (float[1, N, 3] e) { , e = RNN <hidden_size = 3> (x, w, r) }
          >
        }""",
        *(weight("w", 1, 3, 4), weight("r", 1, 3, 3)),
    )
    graph = flat_graph.flattened(load(proto)).proto.graph
    idle = control_flow.dead(graph, lambda node: "then_branch")
    recurrences = [node.output[1] for node in graph.node if node.op_type == "RNN"]
    assert [name in idle for name in recurrences] == [False, True]
    assert "" not in idle
