"""Layers inside of bodies are scored, weighed and repaired as the same branch is in the main graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api, criteria
from onnxprune.model import load
from onnxprune.model.flatten import flattened
from onnxprune.model.run_order import Course
from onnxprune.report import data, text
from onnxprune.runtime import ActivationReader, Session, routes_of
from onnxprune.tracing import trace
from onnxprune.typing import Array
from tests.model.test_control_flow import into

RUNS = 24
# The branch that the data take: four layers, the last of them without an activation.
TAKEN = """
  a = MatMul(h, w1)
  b = Add(a, b1)
  r = Relu(b)
  f = MatMul(r, w2)
  s = Tanh(f)
  d = MatMul(s, w3)
  {made} = Add(d, h)
"""
OTHER = """
  a2 = MatMul(h, v1)
  r2 = Sigmoid(a2)
  {made} = MatMul(r2, v2)
"""
SHARED = """
  a2 = MatMul(h, w1)
  b2 = Add(a2, b1)
  r2 = Tanh(b2)
  c2 = MatMul(r2, w2)
  s2 = Tanh(c2)
  {made} = MatMul(s2, w3)
"""
SIZES = {"w0": (8, 16), "w1": (16, 32), "b1": (32,), "w2": (32, 24), "w3": (24, 16), "w4": (16, 12), "w5": (12, 4)}
OTHERS = {"v1": (16, 20), "v2": (20, 16)}


def weights(sizes: Mapping[str, tuple[int, ...]]) -> list[onnx.TensorProto]:
    """Random weights, each from its own name."""
    made = []
    for name, shape in sizes.items():
        rng = np.random.default_rng([*name.encode(), *shape])
        made.append(numpy_helper.from_array((rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32), name))
    return made


def net(middle: str, inputs: str = "bool c", *extra: onnx.TensorProto) -> onnx.ModelProto:
    """A network with `middle` between its first layer, which gives `h`, and the last, which read `m`."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 8] x, {inputs}) => (float[N, 4] y) {{
      g = MatMul(x, w0)
      h = Relu(g)
      {middle}
      n = Relu(m)
      o = MatMul(n, w4)
      p = Relu(o)
      y = MatMul(p, w5)
    }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend([*weights(SIZES), *extra])
    return proto


def choice(condition: str, then: str, other: str, made: str = "m", names: tuple[str, str] = ("t", "e")) -> str:
    """An If that gives `made`."""
    return f"""{made} = If ({condition}) <
      then_branch = then_{made} () => (float[N, 16] {names[0]}) {{ {then.format(made=names[0])} }},
      else_branch = else_{made} () => (float[N, 16] {names[1]}) {{ {other.format(made=names[1])} }}
    >"""


def inlined() -> onnx.ModelProto:
    """The taken branch alone; the condition is read by nobody."""
    return net(TAKEN.format(made="m"))


def on_an_input() -> onnx.ModelProto:
    return net(choice("c", TAKEN, OTHER), "bool c", *weights(OTHERS))


def on_a_value() -> onnx.ModelProto:
    test = "q = ReduceMean<keepdims = 0>(h)\n z = Constant<value_float = -1.0>()\n k = Less(q, z)\n"
    return net(test + choice("k", OTHER, TAKEN), "bool c", *weights(OTHERS))


def nested() -> onnx.ModelProto:
    inner = choice("c", TAKEN, OTHER, "i", ("t3", "e3")).replace("{", "{{").replace("}", "}}")
    inner += "\n {made} = Identity(i)"
    return net("k = Not(c)\n" + choice("k", "{made} = Sigmoid(h)", inner), "bool c", *weights(OTHERS))


def shared() -> onnx.ModelProto:
    return net(choice("c", TAKEN, SHARED))


def in_the_body() -> onnx.ModelProto:
    """The weights lie in the branches, under names that both have."""
    proto = net(choice("c", TAKEN, SHARED))
    mine = [t for t in proto.graph.initializer if t.name in ("w1", "b1", "w2", "w3")]
    into(proto, "m", "then_branch", *mine)
    into(proto, "m", "else_branch", *mine)
    for name in ("w1", "b1", "w2", "w3"):
        proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == name))
    return proto


def one_step() -> onnx.ModelProto:
    return looped(1)


def looped(steps: int) -> onnx.ModelProto:
    """The taken branch in a loop, which hands its state on."""
    body = f"""m = Loop (count, , h) <
      body = step (int64 i, bool going, float[N, 16] hh) => (bool going2, float[N, 16] t) {{
        going2 = Identity(going)
        {TAKEN.format(made="t").replace("(h,", "(hh,").replace(", h)", ", hh)")}
      }}
    >"""
    return net(body, "bool c", helper.make_tensor("count", TensorProto.INT64, (), [steps]))


def feeds(count: int = RUNS, size: int = 8) -> list[dict[str, Array]]:
    made = [np.random.default_rng(i).normal(size=(size, 8)).astype(np.float32) for i in range(count)]
    return [{"x": x, "c": np.array(True)} for x in made]


SAME = [on_an_input, on_a_value, nested, shared, in_the_body, one_step]


@pytest.mark.parametrize("criterion", ["obs", "wanda", "fluctuation"])
@pytest.mark.parametrize("made", SAME)
def test_scores_are_those_of_the_branch_that_runs(made, criterion: str) -> None:
    found = {}
    for build in (inlined, made):
        groups = trace(load(build()))
        scores = criteria.score(groups, criterion, 0, feeds())
        found[build] = {}
        for group in (g for g in groups.groups if g.units != 20):
            found[build].setdefault(group.units, scores[group.classes])
    assert found[made].keys() == found[inlined].keys() == {16, 32, 24, 12}
    for units, wanted in found[inlined].items():
        np.testing.assert_allclose(found[made][units], wanted, rtol=1e-4)


@pytest.mark.parametrize("made", SAME)
def test_the_repair_is_that_of_the_branch_that_runs(made) -> None:
    results = {build: api.run(load(build()), api.Options(ratio=0.5), data=feeds()) for build in (inlined, made)}
    one, two = results[inlined].recovery, results[made].recovery
    assert one is not None
    assert two is not None
    assert two.kept
    assert two.before.error == pytest.approx(one.before.error, rel=1e-3)
    if made is one_step:
        # A loop hands its state on: the fit of its last layer does not look at the activation behind the loop, which
        # makes it another fit, but no worse one.
        assert two.after.error < 1.02 * one.after.error < two.before.error
        return
    assert two.after.error == pytest.approx(one.after.error, rel=1e-3)
    fresh = feeds(64)[RUNS:]
    with Session(results[inlined].model) as plain, Session(results[made].model) as whole:
        for run in fresh:
            given = {name: value for name, value in run.items() if name in whole.inputs}
            (a,), (b,) = plain.run({n: v for n, v in run.items() if n in plain.inputs}), whole.run(given)
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("made", SAME)
@pytest.mark.parametrize("budget", ["macs"])
def test_budgets_count_the_branch_that_runs(made, budget: str) -> None:
    results = {b: api.run(load(b()), api.Options(**{budget: "50%"}), data=feeds()) for b in (inlined, made)}
    assert results[made].before.macs == results[inlined].before.macs
    assert results[made].after.macs == pytest.approx(results[inlined].after.macs, rel=0.02)


def test_the_report_says_which_branch_runs() -> None:
    outcome = api.run(load(on_an_input()), api.Options(macs="60%"), data=feeds())
    assert data.outcome_json(outcome)["branches"] == [{"node": "m", "runs": {"then_branch": RUNS, "else_branch": 0}}]
    (line,) = (line for line in text.outcome(outcome) if line.startswith("branch"))
    assert line == "branch   m: then_branch in all of 24 runs, else_branch is neither counted nor repaired"
    plain = api.run(load(on_an_input()), api.Options(macs="60%"))
    assert data.outcome_json(plain)["branches"] == []
    assert plain.before.macs > outcome.before.macs


def test_both_branches_are_fitted_where_some_runs_take_each() -> None:
    """Runs that take a branch fit what is in it."""
    runs = feeds()
    for i, run in enumerate(runs):
        run["c"] = np.array(i % 2 == 0)
    outcome = api.run(load(on_an_input()), api.Options(ratio=0.5), data=runs)
    assert outcome.recovery is not None
    nodes = {n.output[0]: n.name or n.output[0] for n in flattened(load(on_an_input())).proto.graph.node}
    assert len(outcome.recovery.fits) >= 6, nodes
    assert outcome.recovery.after.error < 0.5 * outcome.recovery.before.error


def test_a_loop_of_several_steps_is_fitted() -> None:
    outcome = api.run(load(looped(3)), api.Options(ratio=0.3), data=feeds())
    assert outcome.recovery is not None
    assert outcome.recovery.kept
    assert len(outcome.recovery.fits) == 5
    assert outcome.recovery.after.error < 0.6 * outcome.recovery.before.error


def test_the_branch_that_is_not_taken_keeps_what_it_shares() -> None:
    """Only what the data show is fitted: the other branch is as it was cut."""
    outcome = api.run(load(shared()), api.Options(ratio=0.5), data=feeds())
    plain = api.execute(load(shared()), outcome.plan)
    for run in feeds(4):
        given = run | {"c": np.array(False)}
        with Session(plain.model) as one, Session(outcome.model) as two:
            cut, fitted = one.run(given)[0], two.run(given)[0]
        assert cut.shape == fitted.shape
    names = {t.name for t in outcome.model.proto.graph.initializer}
    assert {"w1", "w2", "w3"} <= names


def walked(proto: onnx.ModelProto, runs: Sequence[Mapping[str, Array]], names: Sequence[str]) -> list[list[Mapping]]:
    model = flattened(load(proto))
    with ActivationReader(model, runs, names) as walk:
        return [list(visits) for visits in walk.visits(names)]


def test_a_walk_visits_every_step_of_a_loop() -> None:
    runs, proto = feeds(3), looped(3)
    found = walked(proto, runs, ["hh", "r"])
    assert [len(visits) for visits in found] == [3, 3, 3]
    values = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for run, visits in zip(runs, found, strict=True):
        h = np.maximum(run["x"] @ values["w0"], 0)
        for visit in visits:
            np.testing.assert_allclose(visit["hh"], h, rtol=1e-4, atol=1e-5)
            r = np.maximum(h @ values["w1"] + values["b1"], 0)
            np.testing.assert_allclose(visit["r"], r, rtol=1e-4, atol=1e-5)
            h = np.tanh(r @ values["w2"]) @ values["w3"] + h


def test_a_walk_goes_where_each_run_goes() -> None:
    runs = feeds(4)
    runs[1]["c"] = runs[2]["c"] = np.array(False)
    model = flattened(load(on_an_input()))
    assert [dict(route) for route in routes_of(model, runs)] == [
        {"m": "then_branch"},
        {"m": "else_branch"},
        {"m": "else_branch"},
        {"m": "then_branch"},
    ]
    assert [len(visits) for visits in walked(on_an_input(), runs, ["r"])] == [1, 0, 0, 1]
    assert [len(visits) for visits in walked(on_an_input(), runs, ["r2"])] == [0, 1, 1, 0]
    assert [len(visits) for visits in walked(on_an_input(), runs, ["n"])] == [1, 1, 1, 1]


def test_the_inner_choice_is_asked_where_the_outer_leads_there() -> None:
    runs = feeds(2)
    runs[1]["c"] = np.array(False)
    taken = routes_of(flattened(load(nested())), runs)
    assert taken[0] == {"m": "else_branch", "i": "then_branch"}
    assert taken[1] == {"m": "then_branch"}


def test_a_course_without_a_route_runs_both_branches_in_one_go() -> None:
    course = Course(flattened(load(on_an_input())), {})
    assert course.choices == {"m": "c"}
    assert "r" not in course.known
    assert "r" in Course(course.model, {"m": "then_branch"}).known
