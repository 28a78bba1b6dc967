"""Layers inside of bodies are compared like any others, and count for the strength of a proof."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.model import load, protos
from onnxprune.proof import in_place, prove
from tests.graphs.branches import in_branches
from tests.graphs.net import BOOL, FLOAT, Net, prune
from tests.model.test_control_flow import into, model, recurrent, two_branches, weight


def layers(seed: int) -> onnx.ModelProto:
    net = Net(17, seed=seed)
    x = net.add("Relu", net.add("MatMul", net.input([6, 16]), net.weight(16, 24, name="w1")))
    x = net.add("Relu", net.add("MatMul", x, net.weight(24, 20, name="w2")))
    net.output(net.add("Softmax", net.add("MatMul", x, net.weight(20, 4, name="w3", scale=1e3)), axis=1), [6, 4])
    return net.proto()


def deep() -> onnx.ModelProto:
    """A branch in a branch, whose weights have the same names as those of the other."""
    proto = model(
        """(float[5, 4] x, bool c, bool d) => (float[5, 3] y) {
          h = MatMul(x, w1)
          m = If (c) <
            then_branch = then () => (float[5, 8] t) {
              t = If (d) <
                then_branch = a () => (float[5, 8] ta) { p = MatMul(h, v)  q = Relu(p)  ta = MatMul(q, u) },
                else_branch = b () => (float[5, 8] tb) { p = MatMul(h, v)  q = Tanh(p)  tb = MatMul(q, u) }
              >
            },
            else_branch = other () => (float[5, 8] e) { e = Relu(h) }
          >
          y = MatMul(m, w2)
        }""",
        *(weight("w1", 4, 8), weight("w2", 8, 3)),
    )
    into(proto, "t", "then_branch", weight("v", 8, 6), weight("u", 6, 8))
    return into(proto, "t", "else_branch", weight("v", 8, 12), weight("u", 12, 8))


def spoiled(proto: onnx.ModelProto, name: str, place: int, change: Callable[[np.ndarray], None]) -> onnx.ModelProto:
    """`proto` with the weight `name` changed, in the graph that is the `place`-th to have one."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(proto)
    found = [t for graph in protos.graphs(wrong.graph) for t in graph.initializer if t.name == name]
    value = numpy_helper.to_array(found[place]).copy()
    change(value)
    found[place].CopyFrom(numpy_helper.from_array(value, name))
    return wrong


def scale_largest(value: np.ndarray) -> None:
    value.reshape(-1)[np.abs(value).argmax()] *= 1.5


def swap_rows(value: np.ndarray) -> None:
    value[[0, 1]] = value[[1, 0]]


BRANCHED = {
    "saturated": (in_branches(layers(0), layers(1)), ("w1", "w2", "w3")),
    "nested": (deep(), ("v", "u")),
}


@pytest.mark.parametrize("name", BRANCHED)
def test_weights_of_either_branch_count_for_the_strength(name: str) -> None:
    verdict = prune(BRANCHED[name][0]).verdict
    assert verdict is not None
    assert verdict.strength is not None
    assert (verdict.strength.noticed, verdict.strength.tried) == (verdict.strength.groups,) * 2
    assert len(verdict.inside) >= 2 * len(BRANCHED[name][1])


@pytest.mark.parametrize("change", [scale_largest, swap_rows])
@pytest.mark.parametrize(("name", "weight_name"), [(n, w) for n, (_, names) in BRANCHED.items() for w in names])
def test_a_wrong_weight_of_a_branch_is_refused_by_the_layer_that_reads_it(
    name: str, weight_name: str, change: Callable[[np.ndarray], None]
) -> None:
    """In either branch, though one of them is not taken and the end may be saturated."""
    proto = BRANCHED[name][0]
    result = onnxprune.prune(proto, 0.5)
    for place in (0, 1):
        wrong = spoiled(result.model, weight_name, place, change)
        verdict = onnxprune.verify(proto, wrong, result.plan)
        assert not verdict.ok
        assert "MatMul" in verdict.problem
        assert "differs from the masked original" in verdict.problem, verdict.problem
        assert len(verdict.wrong) == 1


def test_a_branch_that_is_always_taken_is_looked_into() -> None:
    net = layers(0)
    proto = in_branches(net, layers(1))
    value = proto.graph.input.pop()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), value.name))
    result = onnxprune.prune(proto, 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert len(verdict.inside) == 3
    assert verdict.strength is not None
    assert verdict.strength.noticed == verdict.strength.groups == 2


def test_the_flat_models_have_the_names_of_the_trace() -> None:
    """Also where an added tensor has a name that the flat original gave to another."""
    outcome = prune(two_branches())
    flat = in_place.as_traced(outcome.groups, outcome.model)
    names = {o for n in outcome.groups.tracing.model.proto.graph.node for o in n.output if n.op_type == "MatMul"}
    assert names == {o for n in flat.proto.graph.node for o in n.output if n.op_type == "MatMul"}
    stored = {t.name for t in outcome.groups.tracing.model.proto.graph.initializer}
    assert stored == {t.name for t in flat.proto.graph.initializer}
    other = onnx.ModelProto()
    other.CopyFrom(outcome.model.proto)
    other.graph.node.add(op_type="Identity", input=["x"], output=["a_1"])
    again = in_place.as_traced(outcome.groups, load(other))
    made = [o for n in again.proto.graph.node for o in n.output]
    assert len(made) == len(set(made))


# --- loops -----------------------------------------------------------------------------------------------------


def own_weights() -> onnx.ModelProto:
    """A loop whose weights lie in its body, behind one that has weights of the same names."""
    body = """(int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {
      on = Identity(go)  p = MatMul(h, u)  s = Tanh(p)  q = MatMul(s, v)  next = Tanh(q)
    }"""
    proto = model(
        f"""(float[3, 4] x) => (float[3, 2] y) {{
          yes = Constant <value = bool {{1}}> ()
          start = MatMul(x, w)
          first = Loop (three, yes, start) <body = one {body}>
          last = Loop (three, yes, first) <body = other {body}>
          y = MatMul(last, out)
        }}""",
        *(numpy_helper.from_array(np.array(3, np.int64), "three"), weight("w", 4, 6), weight("out", 6, 2)),
    )
    into(proto, "first", "body", weight("u", 6, 8), weight("v", 8, 6))
    return into(proto, "last", "body", weight("u", 6, 10), weight("v", 10, 6))


def branch_in_a_loop() -> onnx.ModelProto:
    """A branch in front of a layer, in a loop whose count is an input."""
    return model(
        """(float[3, 4] x, bool c, int64 trip) => (float[3, 2] y) {
          yes = Constant <value = bool {1}> ()
          start = MatMul(x, w)
          last = Loop (trip, yes, start) <body = one
            (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {
              on = Identity(go)
              p = MatMul(h, u)
              s = If (c) <then_branch = then () => (float[3, 8] t) { t = Tanh(p) },
                          else_branch = other () => (float[3, 8] e) { e = MatMul(p, square) }>
              next = MatMul(s, v)
            }>
          y = MatMul(last, out)
        }""",
        *(weight("w", 4, 6), weight("u", 6, 8), weight("v", 8, 6), weight("square", 8, 8), weight("out", 6, 2)),
    )


def scanned() -> onnx.ModelProto:
    """h = tanh(x_t W + h U), from the last x to the first; every step gives h V."""
    return model(
        """(float[3, 7, 4] x) => (float[7, 3, 2] y, float[3, 2] z) {
          last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1], body = body
            (float[3, 6] h, float[3, 4] part) => (float[3, 6] next, float[3, 5] step) {
              p = MatMul(part, w)  q = MatMul(h, u)  s = Add(p, q)  next = Tanh(s)  step = MatMul(next, v)
            }> (zeros, x)
          y = MatMul(all, read)
          z = MatMul(last, out)
        }""",
        *(weight("w", 4, 6), weight("u", 6, 6), weight("v", 6, 5), weight("read", 5, 2), weight("out", 6, 2)),
        numpy_helper.from_array(np.zeros((3, 6), np.float32), "zeros"),
    )


COUNTS = numpy_helper.from_array(np.array(3, np.int64), "three"), numpy_helper.from_array(np.array(2, np.int64), "two")


def loop_in_a_loop() -> onnx.ModelProto:
    """h = tanh(tanh(h U) V), twice within each of three steps of h = tanh(h A) B."""
    return model(
        """(float[3, 4] x) => (float[3, 2] y) {
          yes = Constant <value = bool {1}> ()
          start = MatMul(x, w)
          last = Loop (three, yes, start) <body = outer
            (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {
              on = Identity(go)
              a1 = MatMul(h, a)  a2 = Tanh(a1)  inside = MatMul(a2, b)
              next = Loop (two, go, inside) <body = inner
                (int64 j, bool more, float[3, 6] g) => (bool again, float[3, 6] done) {
                  again = Identity(more)  p = MatMul(g, u)  s = Tanh(p)  q = MatMul(s, v)  done = Tanh(q)
                }>
            }>
          y = MatMul(last, out)
        }""",
        *(*COUNTS, weight("w", 4, 6), weight("a", 6, 8), weight("b", 8, 6), weight("u", 6, 10), weight("v", 10, 6)),
        weight("out", 6, 2),
    )


def own_weights_in_loops() -> onnx.ModelProto:
    """A loop in a loop and one behind it, whose weights lie in their bodies under the same names."""
    body = """(int64 j, bool more, float[3, 6] g) => (bool again, float[3, 6] done) {
      again = Identity(more)  p = MatMul(g, u)  s = Tanh(p)  q = MatMul(s, v)  done = Tanh(q)
    }"""
    proto = model(
        f"""(float[3, 4] x) => (float[3, 2] y) {{
          yes = Constant <value = bool {{1}}> ()
          start = MatMul(x, w)
          outside = Loop (three, yes, start) <body = outer
            (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {{
              on = Identity(go)
              next = Loop (two, go, h) <body = inner {body}>
            }}>
          last = Loop (two, yes, outside) <body = other {body}>
          y = MatMul(last, out)
        }}""",
        *(*COUNTS, weight("w", 4, 6), weight("out", 6, 2)),
    )
    outer = next(a.g for n in proto.graph.node if n.output[0] == "outside" for a in n.attribute if a.name == "body")
    inner = next(a.g for n in outer.node if n.op_type == "Loop" for a in n.attribute if a.name == "body")
    inner.initializer.extend([weight("u", 6, 8), weight("v", 8, 6)])
    return into(proto, "last", "body", weight("u", 6, 10), weight("v", 10, 6))


def scan_in_a_loop() -> onnx.ModelProto:
    """A recurrence over seven parts, three times over."""
    return model(
        """(float[3, 7, 4] x) => (float[3, 2] y) {
          yes = Constant <value = bool {1}> ()
          last = Loop (three, yes, zeros) <body = outer
            (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {
              on = Identity(go)
              end, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], body = inner
                (float[3, 6] g, float[3, 4] part) => (float[3, 6] done, float[3, 5] step) {
                  p = MatMul(part, w)  q = MatMul(g, u)  s = Add(p, q)  done = Tanh(s)  step = MatMul(done, v)
                }> (h, x)
              read = MatMul(all, r)
              mean = ReduceMean <axes = [1], keepdims = 0> (read)
              next = Add(end, mean)
            }>
          y = MatMul(last, out)
        }""",
        *(*COUNTS, weight("w", 4, 6), weight("u", 6, 6), weight("v", 6, 5), weight("r", 5, 6), weight("out", 6, 2)),
        numpy_helper.from_array(np.zeros((3, 6), np.float32), "zeros"),
    )


def branch_in_a_loop_in_a_scan() -> onnx.ModelProto:
    """Of the two branches, an input takes one in all steps."""
    return model(
        """(float[7, 3, 4] x, bool c) => (float[7, 3, 2] y) {
          yes = Constant <value = bool {1}> ()
          all = Scan <num_scan_inputs = 1, body = outer
            (float[3, 4] part) => (float[3, 2] step) {
              start = MatMul(part, w)
              last = Loop (two, yes, start) <body = inner
                (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {
                  on = Identity(go)
                  p = MatMul(h, u)
                  s = If (c) <then_branch = then () => (float[3, 8] t) { t = Tanh(p) },
                              else_branch = other () => (float[3, 8] e) { e = MatMul(p, square) }>
                  next = MatMul(s, v)
                }>
              step = MatMul(last, out)
            }> (x)
          y = Tanh(all)
        }""",
        *(
            *COUNTS,
            weight("w", 4, 6),
            weight("u", 6, 8),
            weight("v", 8, 6),
            weight("square", 8, 8),
            weight("out", 6, 2),
        ),
    )


def three_loops() -> onnx.ModelProto:
    """Loops in loops in loops; the counts of the inner ones are inputs."""
    return model(
        """(float[3, 4] x, int64 trip) => (float[3, 2] y) {
          yes = Constant <value = bool {1}> ()
          start = MatMul(x, w)
          last = Loop (three, yes, start) <body = first
            (int64 i, bool go, float[3, 6] h) => (bool on, float[3, 6] next) {
              on = Identity(go)
              next = Loop (trip, go, h) <body = second
                (int64 i2, bool go2, float[3, 6] h2) => (bool on2, float[3, 6] next2) {
                  on2 = Identity(go2)
                  middle = Loop (two, go2, h2) <body = third
                    (int64 i3, bool go3, float[3, 6] h3) => (bool on3, float[3, 6] next3) {
                      on3 = Identity(go3)  p = MatMul(h3, u)  s = Tanh(p)  next3 = MatMul(s, v)
                    }>
                  a1 = MatMul(middle, a)  a2 = Tanh(a1)  next2 = MatMul(a2, b)
                }>
            }>
          y = MatMul(last, out)
        }""",
        *(*COUNTS, weight("w", 4, 6), weight("a", 6, 8), weight("b", 8, 6), weight("u", 6, 10), weight("v", 10, 6)),
        weight("out", 6, 2),
    )


LOOPS = {
    "Loop": (recurrent(), ("w", "u", "v"), 1),
    "Loop, given count": (recurrent("trip"), ("w", "u", "v"), 1),
    "Scan": (scanned(), ("w", "u", "v"), 1),
    "own weights": (own_weights(), ("u", "v"), 2),
    "branch": (branch_in_a_loop(), ("u", "v"), 1),
    "Loop in Loop": (loop_in_a_loop(), ("a", "b", "u", "v"), 1),
    "own weights in loops": (own_weights_in_loops(), ("u", "v"), 2),
    "Scan in Loop": (scan_in_a_loop(), ("w", "u", "v", "r"), 1),
    "branch in Loop in Scan": (branch_in_a_loop_in_a_scan(), ("u", "v", "square"), 1),
    "three loops": (three_loops(), ("a", "b", "u", "v"), 1),
}


@pytest.mark.parametrize("name", LOOPS)
def test_weights_of_loops_count_for_the_strength(name: str) -> None:
    proto, weights, loops = LOOPS[name]
    verdict = prune(proto).verdict
    assert verdict is not None
    assert "a loop as a whole" not in verdict.checks
    assert verdict.strength is not None
    assert (verdict.strength.noticed, verdict.strength.tried) == (verdict.strength.groups,) * 2
    assert len(verdict.inside) >= len(weights) * loops


@pytest.mark.parametrize("change", [scale_largest, swap_rows])
@pytest.mark.parametrize(("name", "weight_name"), [(n, w) for n, (_, names, _) in LOOPS.items() for w in names])
def test_a_wrong_weight_of_a_loop_is_refused_by_the_layer_that_reads_it(
    name: str, weight_name: str, change: Callable[[np.ndarray], None]
) -> None:
    proto, _, loops = LOOPS[name]
    result = onnxprune.prune(proto, 0.5)
    for place in range(loops):
        wrong = spoiled(result.model, weight_name, place, change)
        verdict = onnxprune.verify(proto, wrong, result.plan)
        assert not verdict.ok
        assert "MatMul" in verdict.problem
        assert "differs from the masked original" in verdict.problem, verdict.problem
        assert "a loop as a whole" not in verdict.checks


@pytest.mark.parametrize("change", [scale_largest, swap_rows])
def test_a_wrong_weight_of_a_branch_in_a_loop_is_refused_by_the_layer_that_reads_it(
    change: Callable[[np.ndarray], None],
) -> None:
    """Also of the branch that no step takes."""
    proto = branch_in_a_loop()
    result = onnxprune.prune(proto, 0.5)
    verdict = onnxprune.verify(proto, spoiled(result.model, "square", 0, change), result.plan)
    assert not verdict.ok
    assert "MatMul" in verdict.problem
    assert "differs from the masked original" in verdict.problem, verdict.problem
    assert "a loop as a whole" not in verdict.checks


def test_a_loop_that_makes_no_step_is_compared_as_a_whole() -> None:
    """A count of zero leaves nothing to look into; the proof says so."""
    proto = recurrent("none")
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "none"))
    verdict = prune(proto).verdict
    assert verdict is not None
    assert verdict.ok
    assert "a loop as a whole" in verdict.checks


def test_a_loop_whose_state_grows_is_compared_as_a_whole() -> None:
    """What its steps are given cannot be had as one array."""
    proto = model(
        """(float[3, 4] x) => (float[3, 2] y, float[L, 3, 8] all) {
          yes = Constant <value = bool {1}> ()
          start = MatMul(x, w)
          none = Unsqueeze(start, zero)
          last, all = Loop (three, yes, start, none) <body = one
            (int64 i, bool go, float[3, 8] h, float[K, 3, 8] seen) => (bool on, float[3, 8] next, float[M, 3, 8] more) {
              on = Identity(go)  p = MatMul(h, u)  q = Tanh(p)  next = MatMul(q, v)
              part = Unsqueeze(next, zero)  more = Concat <axis = 0>(seen, part)
            }>
          y = MatMul(last, out)
        }""",
        *(numpy_helper.from_array(np.array(3, np.int64), "three"), numpy_helper.from_array(np.array([0]), "zero")),
        *(weight("w", 4, 8), weight("u", 8, 12), weight("v", 12, 8), weight("out", 8, 2)),
    )
    verdict = prune(proto).verdict
    assert verdict is not None
    assert verdict.ok
    assert "a loop as a whole" in verdict.checks


def test_a_loop_in_a_loop_whose_count_changes_is_compared_as_a_whole() -> None:
    """Its steps make no array of all, those of the loop around it do."""
    proto = loop_in_a_loop()
    outer = next(a.g for n in proto.graph.node if n.op_type == "Loop" for a in n.attribute if a.name == "body")
    inner = next(n for n in outer.node if n.op_type == "Loop")
    inner.input[0] = "i"
    result = onnxprune.prune(proto, 0.5)
    verdict = result.report.verdict
    assert verdict.ok and "a loop as a whole" in verdict.checks
    assert {"a1", "inside", "start"} <= verdict.inside.keys() and not {"p", "q"} & verdict.inside.keys()
    for name, problem in (("a", "'a1' of MatMul"), ("u", "differs from the masked original")):
        wrong = onnxprune.verify(proto, spoiled(result.model, name, 0, scale_largest), result.plan)
        assert not wrong.ok and problem in wrong.problem


# --- many branches ----------------------------------------------------------------------------------------------


def in_a_row(count: int) -> onnx.ModelProto:
    """Layers behind each other, each of them in one branch of an If."""
    net = Net(17)
    x, which = net.input([3, 8]), net.input([], dtype=BOOL, name="which")
    for i in range(count):
        x = net.add("Tanh", net.add("MatMul", x, net.weight(8, 8, name=f"outer{i}")))
        bodies = {}
        for name, op in (("then_branch", "Tanh"), ("else_branch", "MatMul")):
            inputs = [x, net.weight(8, 8, name=f"inner{i}")] if op == "MatMul" else [x]
            made = helper.make_node(op, inputs, [f"{name}{i}"])
            ends = [helper.make_tensor_value_info(f"{name}{i}", FLOAT, [3, 8])]
            bodies[name] = helper.make_graph([made], name, [], ends)
        x = net.add("If", which, **bodies)
    net.output(net.add("MatMul", x, net.weight(8, 2, name="last")), [3, 2])
    return net.proto()


def test_branches_that_one_run_can_take_are_proven_together(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, try_run = [], prove.check_run
    monkeypatch.setattr(prove, "check_run", lambda *given: (runs.append(given), try_run(*given))[1])
    verdict = prune(in_a_row(12)).verdict
    assert verdict is not None and verdict.ok
    assert len(runs) == 1
    assert sum(name.startswith("else_branch") for name in verdict.inside) == 12


@pytest.mark.parametrize("place", [0, 7, 11])
def test_one_wrong_weight_among_many_branches_is_named(place: int) -> None:
    proto = in_a_row(12)
    result = onnxprune.prune(proto, 0.5)
    wrong = spoiled(result.model, f"inner{place}", 0, scale_largest)
    verdict = onnxprune.verify(proto, wrong, result.plan)
    assert not verdict.ok
    assert f"'else_branch{place}' of MatMul" in verdict.problem


def test_a_branch_that_does_not_run_hides_no_other() -> None:
    """Of two branches that are not taken, one fails where it is."""
    proto = in_a_row(2)
    first = next(n for n in proto.graph.node if n.op_type == "If")
    branch = next(a.g for a in first.attribute if a.name == "else_branch")
    branch.node.append(helper.make_node("Gather", [branch.node[0].output[0], "far"], ["failed"], axis=0))
    branch.output[0].name = "failed"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, 9, 0]), "far"))
    verdict = prune(proto).verdict
    assert verdict is not None and verdict.ok
    assert [said for said in verdict.checks if "does not run on these inputs" in said]
    assert any(name == "else_branch1" for name in verdict.inside)
